#include "harness/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "reports/atomic_file.h"

namespace fla::harness {
namespace {

using Json = nlohmann::json;

constexpr int kDeepestHeader = 4;  // the object, a tensor, its arrays
constexpr size_t kLongestName = 200;

struct NamedDType {
  const char* name;
  DType dtype;
};
constexpr NamedDType kNames[] = {{"F64", DType::f64},   {"F32", DType::f32}, {"F16", DType::f16},
                                 {"BF16", DType::bf16}, {"I64", DType::i64}, {"I32", DType::i32},
                                 {"I8", DType::i8},     {"U8", DType::u8},   {"BOOL", DType::u8},
                                 {"F8_E4M3", DType::f8e4m3}};

const NamedDType* find_dtype(const std::string& name) {
  for (const NamedDType& d : kNames)
    if (name == d.name) return &d;
  return nullptr;
}

const char* file_name_of(DType dtype) {
  for (const NamedDType& d : kNames)
    if (dtype == d.dtype) return d.name;
  return "U8";
}

// Names come from the file and go to a terminal.
std::string printable(const std::string& text) {
  std::string safe;
  for (const char c : text.substr(0, 80)) safe += c >= ' ' && c < 127 ? c : '?';
  return text.size() > 80 ? safe + "..." : safe;
}

struct HeaderError {
  std::string message;
};

// Refuses while parsing what would be lost afterwards (a name given twice) or cost memory before it is seen
// (depth, number of tensors).
class HeaderGuard {
 public:
  bool operator()(int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kDeepestHeader) throw HeaderError{"nested too deeply"};
    if (event == Json::parse_event_t::object_start) names_.emplace_back();
    if (event == Json::parse_event_t::object_end) names_.pop_back();
    if (event == Json::parse_event_t::key) key(parsed.get_ref<const std::string&>());
    return true;
  }

 private:
  void key(const std::string& name) {
    if (name.size() > kLongestName)
      throw HeaderError{"a name is longer than " + std::to_string(kLongestName) + " bytes"};
    if (!names_.back().insert(name).second)
      throw HeaderError{"the name " + printable(name) + " appears twice"};
    if (names_.back().size() > kMostTensors + 1)
      throw HeaderError{"more than " + std::to_string(kMostTensors) + " tensors"};
  }

  std::vector<std::set<std::string>> names_;
};

bool is_size(const Json& j) {
  return j.is_number_unsigned() && j.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
}

}  // namespace

TensorFile::TensorFile(const std::string& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO must not block
  if (descriptor_ < 0) throw UsageError(path, std::strerror(errno));
  try {
    read_header();
    order_entries();
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

TensorFile::~TensorFile() { ::close(descriptor_); }

void TensorFile::refuse(const std::string& pointer, const std::string& message) const {
  throw UsageError(pointer.empty() ? path_ : path_ + "#" + printable(pointer), message);
}

std::string TensorFile::bytes_at(uint64_t offset, uint64_t count) const {
  std::string bytes(count, 0);
  uint64_t done = 0;
  while (done < count) {
    const ssize_t n =
        ::pread(descriptor_, bytes.data() + done, count - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) refuse("", n < 0 ? std::strerror(errno) : "the file became shorter while it was read");
    done += static_cast<uint64_t>(n);
  }
  return bytes;
}

static TensorFile::Entry entry_of(const std::string& name, const Json& header,
                                  const std::function<void(const std::string&, const std::string&)>& refuse) {
  const std::string place = "/" + name;
  if (!header.is_object()) refuse(place, "not an object");
  for (const auto& [key, value] : header.items())
    if (key != "dtype" && key != "shape" && key != "data_offsets")
      refuse(place, "unknown key " + printable(key));
  for (const char* key : {"dtype", "shape", "data_offsets"})
    if (!header.contains(key)) refuse(place, std::string("no ") + key);

  TensorFile::Entry entry;
  entry.name = name;
  const Json& dtype = header["dtype"];
  const NamedDType* known = dtype.is_string() ? find_dtype(dtype.get<std::string>()) : nullptr;
  if (!known) refuse(place + "/dtype", "unsupported dtype " + printable(dtype.dump(-1, ' ', true)));
  entry.dtype = known->dtype;

  const Json& shape = header["shape"];
  if (!shape.is_array() || shape.size() > kHighestRank)
    refuse(place + "/shape", "not an array of at most " + std::to_string(kHighestRank) + " sizes");
  int64_t bytes = size_of(entry.dtype);
  for (const Json& extent : shape) {
    if (!is_size(extent)) refuse(place + "/shape", "not a list of sizes");
    entry.shape.push_back(extent.get<int64_t>());
    if (__builtin_mul_overflow(bytes, entry.shape.back(), &bytes))
      refuse(place + "/shape", "the product of the sizes overflows");
  }

  const Json& offsets = header["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !is_size(offsets[0]) || !is_size(offsets[1]))
    refuse(place + "/data_offsets", "not two offsets");
  entry.begin = offsets[0].get<uint64_t>();
  entry.end = offsets[1].get<uint64_t>();
  if (entry.begin > entry.end) refuse(place + "/data_offsets", "ends before it begins");
  if (entry.end - entry.begin != static_cast<uint64_t>(bytes))
    refuse(place + "/data_offsets", "spans " + std::to_string(entry.end - entry.begin) +
                                        " bytes, its shape needs " + std::to_string(bytes));
  return entry;
}

void TensorFile::read_header() {
  struct stat facts;
  if (::fstat(descriptor_, &facts) != 0) refuse("", std::strerror(errno));
  if (!S_ISREG(facts.st_mode)) refuse("", "not a regular file");
  file_bytes_ = static_cast<uint64_t>(facts.st_size);
  if (file_bytes_ < 8) refuse("", "too short for a safetensors file");
  const std::string prefix = bytes_at(0, 8);
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i)
    length = length << 8 | static_cast<unsigned char>(prefix[static_cast<size_t>(i)]);
  if (length > kLargestHeader)
    refuse("", "header of " + std::to_string(length) + " bytes, at most " + std::to_string(kLargestHeader));
  if (length > file_bytes_ - 8)
    refuse("", "header of " + std::to_string(length) + " bytes in a file of " + std::to_string(file_bytes_));
  data_start_ = 8 + length;

  Json header;
  try {
    header = Json::parse(bytes_at(8, length), HeaderGuard());
  } catch (const HeaderError& error) {
    refuse("", "header: " + error.message);
  } catch (const Json::exception&) {
    refuse("", "the header is not JSON");
  }
  if (!header.is_object()) refuse("", "the header is not an object");
  const auto refuse_at = [this](const std::string& place, const std::string& message) {
    refuse(place, message);
  };
  for (const auto& [name, value] : header.items()) {
    if (name != "__metadata__") {
      entries_.push_back(entry_of(name, value, refuse_at));
      continue;
    }
    if (!value.is_object()) refuse("/__metadata__", "not an object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) refuse("/__metadata__/" + key, "not a string");
      metadata_[key] = text.get<std::string>();
    }
  }
}

// The tensors cover the bytes after the header exactly: in order, without holes or overlaps.
void TensorFile::order_entries() {
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t expected = 0;
  for (const Entry& entry : entries_) {
    if (entry.begin != expected)
      refuse("/" + entry.name + "/data_offsets",
             entry.begin < expected ? "overlaps another tensor" : "leaves a hole before it");
    expected = entry.end;
  }
  if (expected != file_bytes_ - data_start_)
    refuse("", "the tensors end at byte " + std::to_string(expected) + " of " +
                   std::to_string(file_bytes_ - data_start_) + " bytes of data");
}

std::vector<unsigned char> TensorFile::read(const Entry& entry) const {
  const std::string bytes = bytes_at(data_start_ + entry.begin, entry.end - entry.begin);
  return {bytes.begin(), bytes.end()};
}

void write_tensor_file(const std::string& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorToWrite& a, const TensorToWrite& b) {
    return size_of(a.dtype) > size_of(b.dtype);
  });
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t end = 0;
  for (const TensorToWrite& t : tensors) {
    const uint64_t begin = end;
    end += t.bytes.size();
    header[t.name] = {{"dtype", file_name_of(t.dtype)}, {"shape", t.shape}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.is_null() ? "{}" : header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data aligned to 8 bytes
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(text.size() >> (8 * i) & 0xff);
  file += text;
  for (const TensorToWrite& t : tensors)
    file.append(reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size());
  reports::write_file(path, file);
}

}  // namespace fla::harness
