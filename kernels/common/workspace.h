// The caller's scratch memory, checked before anything is launched.
#pragma once

#include <cstdint>
#include <cstdio>

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

template <class... A>
Status error(StatusCode code, const char* format, A... args) {
  Status s;
  s.code = code;
  if constexpr (sizeof...(args) == 0) std::snprintf(s.text, sizeof s.text, "%s", format);
  else std::snprintf(s.text, sizeof s.text, format, args...);
  return s;
}

}  // namespace fla::detail
