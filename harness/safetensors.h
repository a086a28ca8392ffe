// Reading and writing safetensors: 8 bytes of header length, a JSON header, the tensors' bytes.
//
// The reader treats the file as hostile: everything in the header is checked against everything else and
// against the file's size before a byte of tensor data is read. What is wrong is a UsageError with the place,
// "run.safetensors#/in.x/data_offsets".
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "fla/tensor.h"
#include "harness/case.h"

namespace fla::harness {

inline constexpr uint64_t kLargestHeader = uint64_t{16} << 20;  // bytes
inline constexpr size_t kMostTensors = 1024;
inline constexpr size_t kHighestRank = 8;

class TensorFile {
 public:
  struct Entry {
    std::string name;
    DType dtype = DType::f32;  // BOOL reads as u8
    std::vector<int64_t> shape;
    uint64_t begin = 0, end = 0;  // from the end of the header
  };

  explicit TensorFile(const std::string& path);
  ~TensorFile();
  TensorFile(const TensorFile&) = delete;
  TensorFile& operator=(const TensorFile&) = delete;

  const std::string& path() const { return path_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::vector<Entry>& entries() const { return entries_; }  // in the order of their bytes
  std::vector<unsigned char> read(const Entry&) const;

 private:
  void read_header();
  void order_entries();
  [[noreturn]] void refuse(const std::string& pointer, const std::string& message) const;
  std::string bytes_at(uint64_t offset, uint64_t count) const;

  std::string path_;
  int descriptor_ = -1;
  uint64_t file_bytes_ = 0, data_start_ = 0;
  std::map<std::string, std::string> metadata_;
  std::vector<Entry> entries_;
};

struct TensorToWrite {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  std::vector<unsigned char> bytes;
};

// Replaces `path` as a whole; throws reports::WriteError. The widest dtypes come first, so that every tensor
// is aligned to its elements in the file.
void write_tensor_file(const std::string& path, std::vector<TensorToWrite>,
                       const std::map<std::string, std::string>& metadata);

}  // namespace fla::harness
