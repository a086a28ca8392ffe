// The caller's scratch memory, checked before anything is launched.
#pragma once

#include <cstdint>
#include <cstdio>
#include <initializer_list>

#include "fla/status.h"
#include "fla/tensor.h"

namespace fla::detail {

inline constexpr size_t kWorkspaceAlignment = 256;

constexpr size_t align_workspace(size_t bytes) {
  return (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
}

inline Status check_workspace(const Workspace& workspace, size_t needed) {
  Status s;
  if (needed == 0) return s;
  if (workspace.bytes < needed) {
    s.code = StatusCode::workspace_too_small;
    std::snprintf(s.text, sizeof s.text, "workspace: %zu bytes, needs %zu", workspace.bytes, needed);
  } else if (!workspace.data) {
    s.code = StatusCode::null_pointer;
    std::snprintf(s.text, sizeof s.text, "workspace: null, needs %zu bytes", needed);
  } else if (reinterpret_cast<uintptr_t>(workspace.data) % kWorkspaceAlignment != 0) {
    s.code = StatusCode::misaligned;
    std::snprintf(s.text, sizeof s.text, "workspace: not aligned to %zu bytes", kWorkspaceAlignment);
  }
  return s;
}

// Lays the parts of a workspace one behind another. Run over a null base it only counts, so that one function per
// operator gives both the size and the places.
class WorkspaceParts {
 public:
  explicit WorkspaceParts(void* base = nullptr) : base_(reinterpret_cast<uintptr_t>(base)) {}
  void* take(size_t bytes) {
    const uintptr_t at = base_ + used_;
    used_ += align_workspace(bytes);
    return base_ && bytes ? reinterpret_cast<void*>(at) : nullptr;
  }
  // A dense matrix; absent where `needed` is false.
  Tensor take_matrix(bool needed, DType dtype, int64_t rows, int64_t columns) {
    if (!needed) return {};
    return dense(take(static_cast<size_t>(rows * columns * size_of(dtype))), dtype, {rows, columns});
  }
  size_t bytes() const { return used_; }

 private:
  uintptr_t base_;
  size_t used_ = 0;
};

template <class... A>
Status error(StatusCode code, const char* format, A... args) {
  Status s;
  s.code = code;
  if constexpr (sizeof...(args) == 0) std::snprintf(s.text, sizeof s.text, "%s", format);
  else std::snprintf(s.text, sizeof s.text, format, args...);
  return s;
}

inline Status first_error(std::initializer_list<Status> all) {
  for (const Status& s : all)
    if (!s.ok()) return s;
  return {};
}

}  // namespace fla::detail
