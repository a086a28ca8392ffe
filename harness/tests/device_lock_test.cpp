#include "harness/device_lock.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace fla::harness {
namespace {

class DeviceLockTest : public testing::Test {
 protected:
  DeviceLockTest() {
    char name[] = "/tmp/fla-lock-test-XXXXXX";
    folder_ = ::mkdtemp(name);
  }
  ~DeviceLockTest() override { std::filesystem::remove_all(folder_); }

  // Whether another process has to wait, and for whom; it gives up then.
  std::string holder_for(DeviceUse use, const std::string& device = "0") const {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      DeviceLock lock(device, use,
                      [&](const std::string& holder) { _exit(::write(ends[1], holder.data(), holder.size()) < 0); },
                      folder_);
      _exit(0);
    }
    ::close(ends[1]);
    char text[128];
    const ssize_t length = ::read(ends[0], text, sizeof text);
    ::close(ends[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    return {text, static_cast<size_t>(std::max<ssize_t>(length, 0))};
  }

  DeviceLock locked(DeviceUse use) const {
    return DeviceLock("0", use, [](const std::string& holder) { FAIL() << "waits for " << holder; }, folder_);
  }

  std::string folder_;
};

TEST_F(DeviceLockTest, ABenchmarkIsAlone) {
  const std::string me = "process " + std::to_string(::getpid());
  {
    const DeviceLock lock = locked(DeviceUse::alone);
    EXPECT_NE(holder_for(DeviceUse::alone).find(me), std::string::npos);
    EXPECT_NE(holder_for(DeviceUse::shared).find(me), std::string::npos);
    EXPECT_EQ(holder_for(DeviceUse::alone, "1"), "");  // another GPU
  }
  EXPECT_EQ(holder_for(DeviceUse::alone), "");
}

TEST_F(DeviceLockTest, ChecksShareAndKeepABenchmarkWaiting) {
  const DeviceLock lock = locked(DeviceUse::shared);
  EXPECT_EQ(holder_for(DeviceUse::shared), "");
  EXPECT_NE(holder_for(DeviceUse::alone), "");
}

TEST_F(DeviceLockTest, WaitsUntilTheHolderIsGoneHoweverItEnds) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const DeviceLock lock = locked(DeviceUse::alone);
    if (::write(ready[1], "x", 1) == 1) ::pause();
    _exit(1);
  }
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  bool waited = false;
  const DeviceLock lock("0", DeviceUse::alone,
                        [&](const std::string&) {
                          waited = true;
                          ::kill(child, SIGKILL);
                        },
                        folder_);
  EXPECT_TRUE(waited);
  ::waitpid(child, nullptr, 0);
  for (const int end : ready) ::close(end);
}

TEST(DeviceLock, NoFileMeansFree) {
  const DeviceLock lock("0", DeviceUse::alone, [](const std::string&) { FAIL(); }, "/nonexistent");
}

TEST(DeviceLock, NamesTheDeviceAsTheMachineDoes) {
  ::unsetenv("CUDA_VISIBLE_DEVICES");
  EXPECT_EQ(machine_name_of_device(1), "1");
  ::setenv("CUDA_VISIBLE_DEVICES", "5,GPU-ab/c", 1);
  EXPECT_EQ(machine_name_of_device(0), "5");
  EXPECT_EQ(machine_name_of_device(1), "GPU-ab-c");
  EXPECT_EQ(machine_name_of_device(2), "2");
  ::unsetenv("CUDA_VISIBLE_DEVICES");
}

}  // namespace
}  // namespace fla::harness
