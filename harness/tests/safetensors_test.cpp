// The reader against files that lie.
#include "harness/safetensors.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "reports/atomic_file.h"

namespace fla::harness {
namespace {

std::string scratch(const std::string& name) {
  return testing::TempDir() + "fla_safetensors_" + std::to_string(getpid()) + "_" + name;
}

std::string length_prefix(uint64_t n) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(n >> (8 * i) & 0xff);
  return bytes;
}

std::string file_of(const std::string& header, size_t data_bytes) {
  return length_prefix(header.size()) + header + std::string(data_bytes, 'd');
}

// What the reader says about these bytes; empty when it takes them.
std::string complaint(const std::string& bytes) {
  const std::string path = scratch("hostile.safetensors");
  std::ofstream(path, std::ios::binary) << bytes;
  std::string said;
  try {
    TensorFile file(path);
  } catch (const UsageError& error) {
    said = error.what();
    EXPECT_EQ(said.rfind(path, 0), 0u) << "no place: " << said;
    EXPECT_EQ(said.find('\n'), std::string::npos) << "more than a line: " << said;
  }
  std::filesystem::remove(path);
  return said;
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets +
         "}";
}

TEST(Safetensors, RoundTrip) {
  const std::string path = scratch("round.safetensors");
  std::vector<TensorToWrite> tensors;
  const DType dtypes[] = {DType::u8,   DType::f64, DType::f32, DType::f16,
                          DType::bf16, DType::i64, DType::i32, DType::i8, DType::f8e4m3};
  for (const DType dtype : dtypes) {
    TensorToWrite t{name_of(dtype), dtype, {2, 3}, {}};
    for (int64_t i = 0; i < 6 * size_of(dtype); ++i)
      t.bytes.push_back(static_cast<unsigned char>(i * 7 + size_of(dtype)));
    tensors.push_back(t);
  }
  tensors.push_back({"scalar", DType::f32, {}, {1, 2, 3, 4}});
  tensors.push_back({"empty", DType::f32, {0, 5}, {}});
  write_tensor_file(path, tensors, {{"op", "x_fwd"}, {"attrs", "{\"eps\":1e-05}"}});

  const TensorFile file(path);
  EXPECT_EQ(file.metadata().at("attrs"), "{\"eps\":1e-05}");
  ASSERT_EQ(file.entries().size(), tensors.size());
  for (const TensorToWrite& written : tensors) {
    const auto& entries = file.entries();
    const auto found =
        std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return e.name == written.name; });
    ASSERT_NE(found, entries.end()) << written.name;
    EXPECT_EQ(found->dtype, written.dtype);
    EXPECT_EQ(found->shape, written.shape);
    EXPECT_EQ(file.read(*found), written.bytes) << written.name;
    EXPECT_EQ(found->begin % static_cast<uint64_t>(size_of(written.dtype)), 0u);
  }
  std::filesystem::remove(path);
}

TEST(Safetensors, TakesWhatIsWellFormed) {
  EXPECT_EQ(complaint(file_of("{}", 0)), "");
  EXPECT_EQ(complaint(file_of("{}      ", 0)), "");
  EXPECT_EQ(
      complaint(file_of(
          "{" + tensor("b", "F32", "[2]", "[4,12]") + "," + tensor("a", "F32", "[1]", "[0,4]") + "}", 12)),
      "");
  EXPECT_EQ(complaint(file_of("{" + tensor("m", "BOOL", "[2,2]", "[0,4]") + "}", 4)), "");
}

struct Hostile {
  const char* name;
  std::string bytes;
  const char* says;
};

TEST(Safetensors, RefusesHostileFilesInOneLine) {
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets,
                      size_t data) { return file_of("{" + tensor("x", dtype, shape, offsets) + "}", data); };
  std::string many = "{";
  for (int i = 0; i < 2000; ++i)
    many += (i ? "," : "") + tensor("t" + std::to_string(i), "U8", "[0]", "[0,0]");
  const Hostile files[] = {
      {"empty file", "", "too short"},
      {"seven bytes", "1234567", "too short"},
      {"header beyond the file", length_prefix(1000) + "{}", "header of 1000 bytes in a file"},
      {"header length 2^64-1", length_prefix(~uint64_t{0}) + "{}", "at most"},
      {"header length that wraps with the prefix", length_prefix(~uint64_t{0} - 7) + "{}", "at most"},
      {"header over the cap", length_prefix(kLargestHeader + 1) + std::string(64, ' '), "at most"},
      {"not JSON", file_of("{\"x\":", 0), "not JSON"},
      {"bytes after the object", file_of("{} x", 0), "not JSON"},
      {"invalid UTF-8", file_of("{\"\xff\":1}", 0), "not JSON"},
      {"an array", file_of("[]", 0), "not an object"},
      {"deep nesting", file_of(std::string(100000, '['), 0), "nested too deeply"},
      {"too many tensors", file_of(many + "}", 0), "more than"},
      {"duplicate tensor",
       file_of("{" + tensor("x", "U8", "[1]", "[0,1]") + "," + tensor("x", "U8", "[1]", "[0,1]") + "}", 1),
       "appears twice"},
      {"duplicate key in a tensor",
       file_of("{\"x\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1),
       "appears twice"},
      {"unknown key", file_of("{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"y\":1}}", 1),
       "unknown key"},
      {"missing shape", file_of("{\"x\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1), "no shape"},
      {"tensor that is a number", file_of("{\"x\":3}", 0), "not an object"},
      {"unknown dtype", one("F8_E5M2", "[4]", "[0,4]", 4), "unsupported dtype"},
      {"dtype that is a number", file_of("{\"x\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,1]}}", 1),
       "unsupported dtype"},
      {"negative extent", one("F32", "[-1]", "[0,4]", 4), "not a list of sizes"},
      {"fractional extent", one("F32", "[1.5]", "[0,4]", 4), "not a list of sizes"},
      {"extent 2^63", one("U8", "[9223372036854775808]", "[0,4]", 4), "not a list of sizes"},
      {"extent beyond 64 bits", one("U8", "[36893488147419103232]", "[0,4]", 4), "not a list of sizes"},
      {"shape product that wraps to 0", one("F32", "[4294967296,4294967296]", "[0,0]", 0), "overflows"},
      {"shape product that wraps to 4", one("F32", "[4611686018427387905]", "[0,4]", 4), "overflows"},
      {"rank above the cap", one("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]", 1), "at most 8"},
      {"bytes that do not match", one("F32", "[2]", "[0,4]", 4), "its shape needs 8"},
      {"reversed range", one("F32", "[1]", "[4,0]", 4), "ends before it begins"},
      {"negative offset", one("F32", "[1]", "[-4,0]", 4), "not two offsets"},
      {"offset 2^64-4", one("F32", "[1]", "[18446744073709551612,18446744073709551616]", 4),
       "not two offsets"},
      {"three offsets", one("F32", "[1]", "[0,4,8]", 8), "not two offsets"},
      {"range beyond the file", one("F32", "[2]", "[0,8]", 4), "of 4 bytes of data"},
      {"bytes of nobody", one("F32", "[1]", "[0,4]", 8), "of 8 bytes of data"},
      {"overlap",
       file_of("{" + tensor("x", "U8", "[4]", "[0,4]") + "," + tensor("y", "U8", "[4]", "[2,6]") + "}", 6),
       "overlaps"},
      {"hole",
       file_of("{" + tensor("x", "U8", "[4]", "[0,4]") + "," + tensor("y", "U8", "[2]", "[6,8]") + "}", 8),
       "hole"},
      {"metadata that is no string", file_of("{\"__metadata__\":{\"op\":3}}", 0), "not a string"},
      {"terminal controls in a name", file_of("{\"\\u001b[2J\\n\":{}}", 0), "?[2J?"},
  };
  for (const Hostile& f : files)
    EXPECT_NE(complaint(f.bytes).find(f.says), std::string::npos) << f.name << ": " << complaint(f.bytes);
}

TEST(Safetensors, RefusesWhatIsNoFile) {
  EXPECT_THROW(TensorFile("/nonexistent.safetensors"), UsageError);
  EXPECT_THROW(TensorFile(testing::TempDir()), UsageError);
  EXPECT_THROW(TensorFile("/dev/zero"), UsageError);
  const std::string fifo = scratch("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THROW(TensorFile{fifo}, UsageError);  // and does not wait for a writer
  std::filesystem::remove(fifo);
}

TEST(Safetensors, FileThatShrinksWhileReadIsAnError) {
  const std::string path = scratch("shrinks.safetensors");
  write_tensor_file(path, {{"x", DType::f32, {4}, std::vector<unsigned char>(16)}}, {});
  const TensorFile file(path);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 4);
  EXPECT_THROW(file.read(file.entries()[0]), UsageError);
  std::filesystem::remove(path);
}

TEST(Safetensors, FullDiskIsAWriteError) {
  EXPECT_THROW(write_tensor_file("/dev/full", {{"x", DType::f32, {1}, {1, 2, 3, 4}}}, {}),
               reports::WriteError);
}

}  // namespace
}  // namespace fla::harness
