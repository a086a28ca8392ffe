// From a replay file to a problem: attributes from its metadata, dimensions from its shapes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "harness/replay.h"
#include "reports/json.h"

namespace fla::harness {
namespace {

using reports::Json;

// Larger tensors are no replay but an attempt to exhaust the machine: extents next to an extent of 0 are
// bound by nothing in the file.
constexpr int64_t kMostElements = int64_t{1} << 30;

const Direction& direction_of(const TensorFile& file) {
  const auto op = file.metadata().find("op");
  if (op == file.metadata().end()) throw UsageError(file.path() + "#/__metadata__", "no op");
  for (const Direction& d : all_directions())
    if (d.op + "_" + d.name == op->second) return d;
  throw UsageError(file.path() + "#/__metadata__/op", "unknown operator (--list-ops shows the known ones)");
}

template <class T>
void store(Args& args, const Attribute& a, T value) {
  std::memcpy(static_cast<char*>(args.get()) + a.offset, &value, sizeof value);
}

// False when the value is of another type than the attribute.
bool set_attribute(Args& args, const Attribute& a, const Json& value) {
  switch (a.kind) {
    case Attribute::Kind::real:
      if (value == "inf" || value == "-inf") store(args, a, value == "inf" ? HUGE_VALF : -HUGE_VALF);
      else if (value.is_number()) store(args, a, value.get<float>());
      else return false;
      return true;
    case Attribute::Kind::integer:
      if (!value.is_number_integer()) return false;
      if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
        return false;
      store(args, a, value.get<int64_t>());
      return true;
    case Attribute::Kind::boolean:
      if (!value.is_boolean()) return false;
      store(args, a, value.get<bool>());
      return true;
    case Attribute::Kind::choice: break;
  }
  const auto known =
      std::find(a.choices.begin(), a.choices.end(), value.is_string() ? value.get<std::string>() : "");
  if (known == a.choices.end()) return false;
  store(args, a, static_cast<int32_t>(known - a.choices.begin()));
  return true;
}

// The extents of named dimensions, found from the tensors that carry them.
class Dimensions {
 public:
  Dimensions(const Signature& signature, const std::string& path)
      : signature_(signature), path_(path), values_(signature.dims.size()) {}

  // The dims of a field that a tensor of this rank spells out: all, or all but the omittable ones.
  std::vector<Dim> kept(const Field& field, const Tensor& t) const {
    std::vector<Dim> dims = field.dims;
    if (static_cast<size_t>(t.rank) == dims.size()) return dims;
    dims.erase(std::remove_if(dims.begin(), dims.end(), [](const Dim& d) { return d.omittable; }),
               dims.end());
    if (static_cast<size_t>(t.rank) != dims.size())
      throw UsageError(path_, field.name + ": rank " + std::to_string(t.rank) + ", expected " +
                                  std::to_string(field.dims.size()));
    return dims;
  }

  // Binds what this tensor determines; dims that are an expression only when nothing names them alone.
  void bind(const Field& field, const Tensor& t, bool expressions) {
    const std::vector<Dim> dims = kept(field, t);
    for (size_t i = 0; i < dims.size(); ++i) {
      const Dim& d = dims[i];
      const bool alone = d.plain();
      if (d.symbol < 0 || d.triangular || value(d.symbol) || alone == expressions) continue;
      const int64_t scaled = (t.size[i] - d.plus) * d.over;
      if (scaled < 0 || scaled % d.times != 0)
        throw UsageError(path_, field.name + ": size " + std::to_string(t.size[i]) +
                                    " does not fit dimension " +
                                    signature_.dims[static_cast<size_t>(d.symbol)].name);
      value(d.symbol) = scaled / d.times;
    }
    if (dims.size() == field.dims.size()) return;
    for (const Dim& d : field.dims)
      if (d.omittable && !value(d.symbol)) value(d.symbol) = 1;
  }

  int64_t extent(const Dim& d) {
    if (d.symbol < 0) return d.extent(0);
    const NamedDim& named = signature_.dims[static_cast<size_t>(d.symbol)];
    if (!value(d.symbol) && named.has_fallback) value(d.symbol) = extent(named.fallback);
    if (!value(d.symbol)) throw UsageError(path_, "no tensor says how large dimension " + named.name + " is");
    return d.extent(*value(d.symbol));
  }

  std::map<std::string, int64_t> by_name() {
    std::map<std::string, int64_t> all;
    for (size_t i = 0; i < values_.size(); ++i) {
      Dim d;
      d.symbol = static_cast<int32_t>(i);
      all[signature_.dims[i].name] = extent(d);
    }
    return all;
  }

 private:
  std::optional<int64_t>& value(int32_t symbol) { return values_[static_cast<size_t>(symbol)]; }

  const Signature& signature_;
  const std::string& path_;
  std::vector<std::optional<int64_t>> values_;
};

class Reader {
 public:
  explicit Reader(const TensorFile& file) : file_(file), direction_(direction_of(file)) {}

  Replay read(bool values) {
    problem_.origin.direction = &direction_;
    problem_.args = direction_.defaults;
    describe();
    set_attributes();
    describe();
    for (const auto& entry : file_.entries()) place(entry);
    describe();  // shapes and presence may depend on which tensors there are
    Dimensions dimensions(problem_.signature, file_.path());
    for (const bool expressions : {false, true})
      for (const Field& field : problem_.signature.fields)
        if (problem_.args.tensor(field)) dimensions.bind(field, problem_.args.tensor(field), expressions);
    complete_outputs(dimensions);
    problem_.dims = dimensions.by_name();
    lay_out();
    validate();
    name_case();
    if (values) read_inputs();
    return {std::move(problem_), std::move(claims_)};
  }

 private:
  [[noreturn]] void refuse(const std::string& place, const std::string& message) const {
    throw UsageError(file_.path() + place, message);
  }

  void describe() { problem_.signature = direction_.signature(problem_.args.get()); }

  void set_attributes() {
    const auto text = file_.metadata().find("attrs");
    if (text == file_.metadata().end()) return;
    const std::string place = "#/__metadata__/attrs";
    Json attributes;
    try {
      attributes = reports::parse_json(text->second, place);
    } catch (const reports::FormatError&) {
      refuse(place, "not JSON");
    }
    if (!attributes.is_object()) refuse(place, "not a JSON object");
    for (const auto& [name, value] : attributes.items()) {
      const auto& known = problem_.signature.attributes;
      const auto a =
          std::find_if(known.begin(), known.end(), [&](const Attribute& k) { return k.name == name; });
      if (a == known.end()) refuse(place, direction_.key() + " has no such attribute");
      if (!set_attribute(problem_.args, *a, value)) refuse(place, a->name + ": not a value it can have");
      problem_.origin.values.emplace_back(a->name,
                                          value.is_string() ? value.get<std::string>() : value.dump());
    }
  }

  // Puts the tensor's shape into the arguments, or notes the claim.
  void place(const TensorFile::Entry& entry) {
    const bool in = entry.name.rfind("in.", 0) == 0, out = entry.name.rfind("out.", 0) == 0;
    const std::string name = entry.name.substr(in ? 3 : out ? 4 : 0);
    const int index = in || out ? problem_.index_of(name) : -1;
    if (index < 0) refuse("#/" + name, "not in.<field> or out.<field> of " + direction_.key());
    const Field& field = problem_.signature.fields[static_cast<size_t>(index)];
    if (in && field.role != Role::input && field.role != Role::inout)
      refuse("#/" + entry.name, "is an output");
    if (out && field.role == Role::input) refuse("#/" + entry.name, "is an input");
    if (entry.shape.size() > kMaxRank) refuse("#/" + entry.name, "rank above " + std::to_string(kMaxRank));
    for (const int64_t extent : entry.shape)
      if (extent > kMostElements) refuse("#/" + entry.name, "too large");
    if (out) claims_.push_back({index, entry.dtype, entry});
    if (out && field.role == Role::inout) return;  // the input decides its shape
    Tensor& t = problem_.args.tensor(field);
    t.dtype = entry.dtype;
    t.rank = static_cast<int32_t>(entry.shape.size());
    std::copy(entry.shape.begin(), entry.shape.end(), t.size);
  }

  // Shapes of required outputs that nobody claims, and the dtypes that the operator would store.
  void complete_outputs(Dimensions& dimensions) {
    for (const Field& field : problem_.signature.fields) {
      Tensor& t = problem_.args.tensor(field);
      if (field.role == Role::input || field.role == Role::inout) continue;
      if (!t && field.presence != Presence::required) continue;
      if (!t) {
        t.rank = static_cast<int32_t>(field.dims.size());
        for (size_t i = 0; i < field.dims.size(); ++i) t.size[i] = dimensions.extent(field.dims[i]);
      }
      t.dtype = output_dtype(field);
    }
  }

  DType output_dtype(const Field& field) const {
    const auto present = [&](const std::string& name) -> const Tensor* {
      const Field* f = name.empty() ? nullptr : problem_.signature.field(name);
      return f && problem_.args.tensor(*f) ? &problem_.args.tensor(*f) : nullptr;
    };
    const auto allowed = [&](const Tensor* t) { return t && (field.types & only(t->dtype)); };
    if (const Tensor* like = present(field.like)) return like->dtype;
    const Tensor* self = present(field.name);
    if (allowed(self)) return self->dtype;
    const Tensor* primal = field.name[0] == 'd' ? present(field.name.substr(1)) : nullptr;
    if (allowed(primal)) return primal->dtype;
    for (const Field& f : problem_.signature.fields)
      if (f.role == Role::input && allowed(present(f.name))) return present(f.name)->dtype;
    int first = 0;
    while (first < kDTypeCount - 1 && !(field.types >> first & 1)) ++first;
    return static_cast<DType>(first);
  }

  void lay_out() {
    problem_.values.resize(problem_.signature.fields.size());
    problem_.layouts.resize(problem_.signature.fields.size());
    for (size_t i = 0; i < problem_.signature.fields.size(); ++i) {
      Tensor& t = problem_.args.tensor(problem_.signature.fields[i]);
      int64_t step = 1, bounded = 1;
      for (int axis = t.rank - 1; axis >= 0; --axis) {
        t.stride[axis] = step;
        if (__builtin_mul_overflow(bounded, std::max<int64_t>(t.size[axis], 1), &bounded) ||
            bounded > kMostElements)
          refuse("#/" + problem_.signature.fields[i].name, "too large");
        step *= t.size[axis];
      }
      problem_.values[i].size.assign(t.size, t.size + t.rank);
      if (!t) continue;
      problem_.layouts[i].stride.assign(t.stride, t.stride + t.rank);
      problem_.layouts[i].span = step;
      problem_.bytes += step * size_of(t.dtype);
    }
  }

  // The operator's own validation, at made-up addresses that do not overlap.
  void validate() const {
    Args placed = problem_.args;
    uintptr_t address = uintptr_t{1} << 40;
    for (const Field& field : problem_.signature.fields) {
      Tensor& t = placed.tensor(field);
      if (!t) continue;
      t.data = reinterpret_cast<void*>(address);
      address += static_cast<uintptr_t>((count(t) * size_of(t.dtype) + 511) / 256 * 256);
    }
    const Status status = direction_.validate(placed.get());
    if (!status.ok()) refuse("", status.text);
    for (const Claim& c : claims_) {
      const Tensor& t = problem_.args.tensor(problem_.signature.fields[static_cast<size_t>(c.field)]);
      if (!std::equal(c.entry.shape.begin(), c.entry.shape.end(), t.size, t.size + t.rank))
        refuse("#/" + c.entry.name, "is not of the shape of in." + c.entry.name.substr(4));
      if (is_float(c.dtype) != is_float(t.dtype))
        refuse("#/" + c.entry.name, "integers where floats belong or floats where integers do");
    }
  }

  // A case string for people: the data come from the file, not from it.
  void name_case() {
    auto& values = problem_.origin.values;
    std::vector<std::pair<std::string, std::string>> all;
    for (const NamedDim& d : problem_.signature.dims)
      all.emplace_back(d.name, std::to_string(problem_.dims[d.name]));
    all.insert(all.end(), values.begin(), values.end());
    for (const Field& f : problem_.signature.fields)
      if (const Tensor& t = problem_.args.tensor(f); t && f.role == Role::input)
        all.emplace_back(f.name, name_of(t.dtype));
    values = std::move(all);
  }

  void read_inputs() {
    for (const auto& entry : file_.entries()) {
      if (entry.name.rfind("in.", 0) != 0) continue;
      HostTensor& host = problem_.values[static_cast<size_t>(problem_.index_of(entry.name.substr(3)))];
      host = read_host_tensor(file_, entry);
    }
  }

  const TensorFile& file_;
  const Direction& direction_;
  Problem problem_;
  std::vector<Claim> claims_;
};

}  // namespace

HostTensor read_host_tensor(const TensorFile& file, const TensorFile::Entry& entry) {
  const std::vector<unsigned char> bytes = file.read(entry);
  const auto elements = static_cast<int64_t>(bytes.size()) / size_of(entry.dtype);
  HostTensor host;
  host.size = entry.shape;
  if (is_float(entry.dtype)) host.real.resize(static_cast<size_t>(elements));
  else host.integer.resize(static_cast<size_t>(elements));
  decode(entry.dtype, bytes.data(), elements, host, 0);
  return host;
}

Replay read_replay(const TensorFile& file, bool values) { return Reader(file).read(values); }

}  // namespace fla::harness
