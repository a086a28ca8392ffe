#include "harness/trial.h"

#include <algorithm>
#include <stdexcept>

#include "harness/judge.h"

namespace fla::harness {
namespace {

const Problem& checked(const Problem& problem, Device& device) {
  const size_t workspace = problem.origin.direction->workspace_bytes(problem.args.get());
  OutOfMemory e;
  e.need = static_cast<size_t>(Buffers::bytes_needed(problem, device)) +
           GuardedMemory::bytes_needed(device, workspace, 0);
  e.free = device.free_bytes();
  if (e.need > e.free) throw e;
  return problem;
}

std::vector<unsigned char> poisoned_bytes(Poison poison, size_t count) {
  std::vector<unsigned char> bytes((count + 3) / 4 * 4);
  fill_poison(poison, DType::f32, 0, static_cast<int64_t>(bytes.size() / 4), bytes.data());
  bytes.resize(count);
  return bytes;
}

}  // namespace

Trial::Trial(const Problem& problem_, Device& device_)
    : problem(checked(problem_, device_)), device(device_), buffers(problem, device) {
  const size_t bytes = problem.origin.direction->workspace_bytes(buffers.args().get());
  workspace_ = std::make_unique<GuardedMemory>(device, bytes, 0, problem.origin.seed() ^ 0x776f726bu);
}

void Trial::prepare(Poison poison, const Problem& contents) {
  buffers.prepare(poison, contents);
  workspace_->arm(poison);
  constexpr size_t kChunk = size_t{16} << 20;  // of whole pairs of the poison
  const std::vector<unsigned char> image = poisoned_bytes(poison, std::min(workspace_->bytes(), kChunk));
  for (size_t at = 0; at < workspace_->bytes(); at += kChunk)
    device.upload(workspace_->data() + at, image.data(), std::min(workspace_->bytes() - at, kChunk));
  poison_ = poison;
}

Status Trial::launch(Stream stream) { return launch(buffers.args(), workspace_->bytes(), stream); }

Status Trial::launch(const Args& args, size_t bytes, Stream stream) {
  Workspace workspace;
  if (bytes > 0) workspace = {workspace_->data(), bytes};
  return problem.origin.direction->run(args.get(), workspace, stream);
}

Snapshot Trial::run(Poison poison, const Problem& contents) {
  prepare(poison, contents);
  const Status status = launch(device.stream(0));
  if (!status.ok()) throw std::runtime_error(std::string("refused: ") + status.text);
  device.synchronize();
  scan_workspace();
  return buffers.read();
}

void Trial::scan_workspace() {
  const std::vector<unsigned char> before = poisoned_bytes(poison_, workspace_->bytes());
  std::vector<unsigned char> after(before.size());
  if (!after.empty()) device.download(after.data(), workspace_->data(), after.size());
  for (size_t end = after.size(); end > static_cast<size_t>(touched_); --end) {
    if (after[end - 1] == before[end - 1]) continue;
    touched_ = static_cast<int64_t>(end);
    return;
  }
}

std::string Trial::damage() const {
  if (std::string where = buffers.damage(); !where.empty()) return where;
  const std::string where = workspace_->damage();
  return where.empty() ? where : "workspace: " + where;
}

void account(const Trial& trial, Memory& memory) {
  const Problem& p = trial.problem;
  memory.inputs = memory.outputs = memory.saved = 0;
  for (const Field& f : p.signature.fields) {
    const Tensor& t = p.args.tensor(f);
    const int64_t bytes = element_count(t) * (t ? size_of(t.dtype) : 0);
    switch (f.role) {
      case Role::input:
      case Role::inout:
        memory.inputs += bytes;
        break;
      case Role::output:
        memory.outputs += bytes;
        break;
      case Role::saved:
        memory.saved += bytes;
        break;
    }
  }
  memory.workspace = static_cast<int64_t>(trial.workspace_bytes());
  memory.peak = p.bytes + memory.workspace;
}

}  // namespace fla::harness
