// Products by cuBLASLt. Its matrices are column-major, so the transposed product is asked for: C^T = op(B)^T op(A)^T,
// where the memory of a row-major matrix is already that of its transpose.
//
// A call costs the host about 3 us: descriptors live on the stack, the handle is per device, and the algorithm of a
// problem is remembered. What is asked once per problem is the table (gemm_tuning.h), then the library's heuristic
// (20-100 us). First-guess algorithms are up to 19 % slower than the best on an H200, which is why there is a table.
#include <cublasLt.h>
#include <cuda_runtime.h>

#include <array>
#include <cstring>
#include <iterator>
#include <mutex>
#include <unordered_map>

#include "common/gemm_tuning.h"
#include "common/workspace.h"

namespace fla::detail {
namespace {

constexpr int kMostDevices = 64;
constexpr size_t kMostRemembered = 4096;  // token counts may be different in every step
// Parts of a split K are added in fp32 in the workspace; adding them in the output would round each to its dtype.
constexpr uint32_t kReductions = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;

constexpr GemmTableRow kTable[] = {
#include "common/gemm_table.inc"
    {}  // keeps an empty table legal; matches nothing, as no device is of sm 0
};

Status cublas_status(cublasStatus_t code, const char* doing) {
  if (code == CUBLAS_STATUS_SUCCESS) return {};
  return error(StatusCode::cuda_error, "gemm: %s: %s", doing, cublasLtGetStatusString(code));
}

cudaDataType_t cuda_type(DType type) {
  switch (type) {
    case DType::f16: return CUDA_R_16F;
    case DType::bf16: return CUDA_R_16BF;
    default: return CUDA_R_32F;
  }
}

// Everything an algorithm may depend on. Compared and hashed as bytes, so padding is cleared.
struct Problem {
  int64_t m, n, k, lda, ldb, ldc;
  uint64_t workspace_bytes;
  int32_t device;
  int16_t types, flags;
  uint16_t align_a, align_b, align_c, align_bias;

  explicit Problem(const Gemm& g, int device_, size_t workspace) {
    std::memset(static_cast<void*>(this), 0, sizeof *this);
    m = g.m(), n = g.n(), k = g.k();
    lda = stride_of(g.a), ldb = stride_of(g.b), ldc = stride_of(g.c);
    workspace_bytes = workspace;
    device = device_;
    types = static_cast<int16_t>(static_cast<int>(g.a.dtype) * 8 + static_cast<int>(g.c.dtype));
    flags = static_cast<int16_t>(g.transpose_a | g.transpose_b << 1 | g.accumulate << 2 | g.allow_tf32 << 3 |
                                 static_cast<bool>(g.bias) << 4 | static_cast<bool>(g.device_alpha) << 5);
    align_a = alignment_of(g.a), align_b = alignment_of(g.b), align_c = alignment_of(g.c);
    align_bias = alignment_of(g.bias);
  }
  bool operator==(const Problem& other) const { return std::memcmp(this, &other, sizeof *this) == 0; }

  // Of a matrix with one row the stride says nothing.
  static int64_t stride_of(const Tensor& t) { return t.size[0] > 1 ? t.stride[0] : t.size[1]; }
  static uint16_t alignment_of(const Tensor& t) {
    const uint64_t bits = reinterpret_cast<uintptr_t>(t.data) | 256;
    return static_cast<uint16_t>(bits & -bits);
  }
  // The table was measured on rows that 16-byte accesses may start at.
  bool is_aligned(DType operands, DType result) const {
    const int64_t wide = 16 / size_of(operands), wide_result = 16 / size_of(result);
    return align_a >= 16 && align_b >= 16 && align_c >= 16 && align_bias >= 16 && lda % wide == 0 &&
           ldb % wide == 0 && ldc % wide_result == 0;
  }
};

struct ProblemHash {
  size_t operator()(const Problem& p) const {
    uint64_t words[sizeof(Problem) / 8];
    static_assert(sizeof(Problem) % 8 == 0);
    std::memcpy(words, &p, sizeof p);
    uint64_t hash = 0;
    for (const uint64_t word : words) hash = (hash ^ word) * 0x9e3779b97f4a7c15u, hash ^= hash >> 29;
    return hash;
  }
};

// What cuBLASLt is told of one product; lives on the stack.
struct Descriptors {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t first, second, result;  // op(B)^T, op(A)^T, C^T

  Status describe(const Gemm& g, const Problem& p) {
    const cublasComputeType_t compute = compute_type(g);
    if (Status s = cublas_status(cublasLtMatmulDescInit(&operation, compute, CUDA_R_32F), "describe"); !s.ok()) return s;
    set(CUBLASLT_MATMUL_DESC_TRANSA, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (g.device_alpha) set(CUBLASLT_MATMUL_DESC_POINTER_MODE, int32_t{CUBLASLT_POINTER_MODE_DEVICE});
    if (g.bias) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias.data);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, cuda_type(g.bias.dtype));
    }
    lay_out(first, g.b, p.ldb);
    lay_out(second, g.a, p.lda);
    lay_out(result, g.c, p.ldc);
    return status;
  }

  static cublasComputeType_t compute_type(const Gemm& g) {
    return g.allow_tf32 && g.a.dtype == DType::f32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  }

 private:
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, T value) {
    note(cublasLtMatmulDescSetAttribute(&operation, attribute, &value, sizeof value));
  }
  void lay_out(cublasLtMatrixLayoutOpaque_t& layout, const Tensor& t, int64_t stride) {
    note(cublasLtMatrixLayoutInit(&layout, cuda_type(t.dtype), static_cast<uint64_t>(t.size[1]),
                                  static_cast<uint64_t>(t.size[0]), stride));
  }
  void note(cublasStatus_t code) {
    if (status.ok()) status = cublas_status(code, "describe");
  }
  Status status;
};

// One handle per device, for the life of the process: destroying it at exit would race with the driver's own end.
Status handle_of(int device, cublasLtHandle_t& handle) {
  static std::mutex mutex;
  static std::array<cublasLtHandle_t, kMostDevices> handles{};
  if (device < 0 || device >= kMostDevices) return error(StatusCode::cuda_error, "gemm: device %d", device);
  const std::lock_guard lock(mutex);
  cublasLtHandle_t& known = handles[static_cast<size_t>(device)];
  if (!known)
    if (Status s = cublas_status(cublasLtCreate(&known), "create handle"); !s.ok()) return s;
  handle = known;
  return {};
}

Status current_device(int& device) {
  const cudaError_t code = cudaGetDevice(&device);
  if (code == cudaSuccess) return {};
  Status s = error(StatusCode::cuda_error, "gemm: current device: %s", cudaGetErrorString(code));
  s.cuda_code = static_cast<int32_t>(code);
  return s;
}

template <class T>
T config(const cublasLtMatmulAlgo_t& algo, cublasLtMatmulAlgoConfigAttributes_t attribute) {
  T value{};
  (void)cublasLtMatmulAlgoConfigGetAttribute(&algo, attribute, &value, sizeof value, nullptr);
  return value;
}

GemmAlgorithm attributes_of(const cublasLtMatmulAlgo_t& algo) {
  GemmAlgorithm a;
  a.id = config<int32_t>(algo, CUBLASLT_ALGO_CONFIG_ID);
  a.tile = config<uint32_t>(algo, CUBLASLT_ALGO_CONFIG_TILE_ID);
  a.stages = config<uint32_t>(algo, CUBLASLT_ALGO_CONFIG_STAGES_ID);
  a.split_k = config<int32_t>(algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
  a.reduction = config<uint32_t>(algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
  a.swizzle = config<uint32_t>(algo, CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING);
  a.custom = config<uint32_t>(algo, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION);
  a.inner_shape = config<uint16_t>(algo, CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID);
  a.cluster_shape = config<uint16_t>(algo, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID);
  return a;
}

// The algorithm with these attributes, where the library accepts it for the product within the workspace.
bool build(cublasLtHandle_t handle, const Gemm& g, Descriptors& d, const GemmAlgorithm& a, size_t workspace,
           cublasLtMatmulAlgo_t& algo) {
  const cudaDataType_t in = cuda_type(g.a.dtype), out = cuda_type(g.c.dtype);
  if (cublasLtMatmulAlgoInit(handle, Descriptors::compute_type(g), CUDA_R_32F, in, in, out, out, a.id, &algo) !=
      CUBLAS_STATUS_SUCCESS)
    return false;
  auto set = [&](cublasLtMatmulAlgoConfigAttributes_t attribute, const auto& value) {
    (void)cublasLtMatmulAlgoConfigSetAttribute(&algo, attribute, &value, sizeof value);
  };
  set(CUBLASLT_ALGO_CONFIG_TILE_ID, a.tile);
  set(CUBLASLT_ALGO_CONFIG_STAGES_ID, a.stages);
  set(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, a.split_k);
  set(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, a.reduction);
  set(CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, a.swizzle);
  set(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, a.custom);
  set(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, a.inner_shape);
  set(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, a.cluster_shape);
  cublasLtMatmulHeuristicResult_t result{};
  return (a.reduction & ~kReductions) == 0 &&
         cublasLtMatmulAlgoCheck(handle, &d.operation, &d.first, &d.second, &d.result, &d.result, &algo, &result) ==
             CUBLAS_STATUS_SUCCESS &&
         result.workspaceSize <= workspace;
}

Status ask_library(cublasLtHandle_t handle, const Problem& p, Descriptors& d, cublasLtMatmulHeuristicResult_t* results,
                   int most, int& found) {
  cublasLtMatmulPreferenceOpaque_t preference;
  cublasStatus_t code = cublasLtMatmulPreferenceInit(&preference);
  auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    if (code == CUBLAS_STATUS_SUCCESS)
      code = cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof value);
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, p.workspace_bytes);
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, kReductions);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, uint32_t{p.align_b});
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, uint32_t{p.align_a});
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, uint32_t{p.align_c});
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, uint32_t{p.align_c});
  if (code == CUBLAS_STATUS_SUCCESS)
    code = cublasLtMatmulAlgoGetHeuristic(handle, &d.operation, &d.first, &d.second, &d.result, &d.result, &preference,
                                          most, results, &found);
  if (code == CUBLAS_STATUS_SUCCESS && found == 0) code = CUBLAS_STATUS_NOT_SUPPORTED;
  return cublas_status(code, "no algorithm");
}

Status choose(cublasLtHandle_t handle, const Gemm& g, const Problem& p, Descriptors& d, cublasLtMatmulAlgo_t& algo) {
  if (p.is_aligned(g.a.dtype, g.c.dtype))
    if (const GemmAlgorithm a = gemm_table_choice(g); a.id >= 0 && build(handle, g, d, a, p.workspace_bytes, algo))
      return {};
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  if (Status s = ask_library(handle, p, d, &result, 1, found); !s.ok()) return s;
  algo = result.algo;
  return {};
}

Status algorithm_of(cublasLtHandle_t handle, const Gemm& g, const Problem& p, Descriptors& d,
                    cublasLtMatmulAlgo_t& algo) {
  static std::mutex mutex;
  static std::unordered_map<Problem, cublasLtMatmulAlgo_t, ProblemHash> remembered;
  {
    const std::lock_guard lock(mutex);
    if (const auto known = remembered.find(p); known != remembered.end()) {
      algo = known->second;
      return {};
    }
  }
  if (Status s = choose(handle, g, p, d, algo); !s.ok()) return s;
  const std::lock_guard lock(mutex);
  if (remembered.size() >= kMostRemembered) remembered.clear();
  remembered.emplace(p, algo);
  return {};
}

Status enqueue(cublasLtHandle_t handle, const Gemm& g, Descriptors& d, const cublasLtMatmulAlgo_t& algo,
               Workspace workspace, Stream stream) {
  const float here[] = {g.alpha, 0.0f, 1.0f};
  const float* factors = g.device_alpha ? g.device_alpha : here;
  const float* beta = factors + (g.accumulate ? 2 : 1);
  return cublas_status(
      cublasLtMatmul(handle, &d.operation, factors, g.b.data, &d.first, g.a.data, &d.second, beta, g.c.data, &d.result,
                     g.c.data, &d.result, &algo, workspace.data, workspace.bytes, stream),
      "launch");
}

// The parts of a call that every entry needs.
struct Prepared {
  int device = 0;
  cublasLtHandle_t handle = nullptr;
  Descriptors descriptors;

  Status prepare(const Gemm& g) {
    if (Status s = current_device(device); !s.ok()) return s;
    if (Status s = handle_of(device, handle); !s.ok()) return s;
    return descriptors.describe(g, Problem(g, device, 0));
  }
};

}  // namespace

int current_sm() {
  int device = 0, major = 0, minor = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess)
    return 0;
  return 10 * major + minor;
}

GemmBucket bucket_of(const Gemm& g, int sm) {
  return {sm, g.a.dtype, g.c.dtype, g.transpose_a, g.transpose_b, g.accumulate, static_cast<bool>(g.bias),
          half_octave(g.m()), half_octave(g.n()), half_octave(g.k())};
}

GemmAlgorithm gemm_table_choice(const Gemm& g) {
  if (g.allow_tf32 && g.a.dtype == DType::f32) return {};
  const GemmBucket bucket = bucket_of(g, current_sm());
  for (const GemmTableRow& row : kTable)
    if (row.bucket == bucket && row.bucket.sm != 0) return row.algorithm;
  return {};
}

const GemmTableRow* gemm_table(int& rows) {
  rows = static_cast<int>(std::size(kTable)) - 1;
  return kTable;
}

Status multiply(const Gemm& g, Workspace workspace, Stream stream) {
  Prepared call;
  if (Status s = call.prepare(g); !s.ok()) return s;
  cublasLtMatmulAlgo_t algo;
  const Problem problem(g, call.device, workspace.bytes);
  if (Status s = algorithm_of(call.handle, g, problem, call.descriptors, algo); !s.ok()) return s;
  return enqueue(call.handle, g, call.descriptors, algo, workspace, stream);
}

int gemm_candidates(const Gemm& g, GemmAlgorithm* out, int most, Status& status) {
  constexpr int kMostAsked = 64;
  Prepared call;
  if (status = call.prepare(g); !status.ok()) return 0;
  cublasLtMatmulHeuristicResult_t results[kMostAsked];
  int found = 0;
  const Problem problem(g, call.device, gemm_workspace_bytes(g.m(), g.n()));
  status = ask_library(call.handle, problem, call.descriptors, results, most < kMostAsked ? most : kMostAsked, found);
  if (!status.ok()) return 0;
  int kept = 0;
  for (int i = 0; i < found; ++i) {
    // Only what can be named again from its attributes belongs in a table.
    cublasLtMatmulAlgo_t rebuilt;
    const GemmAlgorithm a = attributes_of(results[i].algo);
    if (build(call.handle, g, call.descriptors, a, problem.workspace_bytes, rebuilt)) out[kept++] = a;
  }
  return kept;
}

Status multiply_with(const Gemm& g, const GemmAlgorithm& a, Workspace workspace, Stream stream) {
  Prepared call;
  if (Status s = call.prepare(g); !s.ok()) return s;
  cublasLtMatmulAlgo_t algo;
  if (!build(call.handle, g, call.descriptors, a, workspace.bytes, algo))
    return error(StatusCode::unsupported_combination, "gemm: the library refuses algorithm %d here", a.id);
  return enqueue(call.handle, g, call.descriptors, algo, workspace, stream);
}

}  // namespace fla::detail
