// What becomes of rows on their way into a product (Ops::Rows), seen through weights that let some columns through as they are:
// F32 ones show the rows themselves, the others what is left of them after rounding.
#include <cmath>
#include <cstring>

#include "core/dtype.h"
#include "device_case.h"

using namespace minigpt4;
using namespace ops_case;
using device_case::device;
using Form = Ops::Rows::Form;

namespace {

constexpr float kEps = 1e-5f;
constexpr Form kForms[] = {Form::plain, Form::rms_norm, Form::layer_norm, Form::gelu, Form::silu_mul};
const char* const kNames[] = {"plain", "rms_norm", "layer_norm", "gelu", "silu_mul"};

/// The columns that are looked at: all of a narrow row, of a wide one the first block of 32, one in the middle and the last.
std::vector<int> columns(int C) {
  std::vector<int> of;
  for (int i = 0; i < C; ++i) {
    const int block = i / 32;
    if (C <= 352 || block == 0 || block == C / 64 || block == C / 32 - 1) of.push_back(i);
  }
  return of;
}

/// A weight that lets those columns through as they are, in a type: of Q8_0, blocks with d = 1.
std::vector<uint8_t> selection(Type type, int C) {
  const std::vector<int> chosen = columns(C);
  if (type != Type::Q8_0) {
    Floats values(chosen.size() * size_t(C));
    for (size_t row = 0; row < chosen.size(); ++row) values[row * size_t(C) + size_t(chosen[row])] = 1;
    std::vector<uint8_t> bytes(values.size() * (type == Type::F32 ? 4 : 2));
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t half = type == Type::F16 ? float_to_half(values[i]) : float_to_bf16(values[i]);
      if (type == Type::F32) {
        std::memcpy(&bytes[4 * i], &values[i], 4);
      } else {
        std::memcpy(&bytes[2 * i], &half, 2);
      }
    }
    return bytes;
  }
  const size_t blocks = size_t(C) / 32, block_bytes = 34;
  std::vector<uint8_t> bytes(chosen.size() * blocks * block_bytes);
  const uint16_t one = float_to_half(1);
  for (size_t i = 0; i < chosen.size() * blocks; ++i) std::memcpy(&bytes[i * block_bytes], &one, 2);
  for (size_t row = 0; row < chosen.size(); ++row) {
    const size_t column = size_t(chosen[row]);
    bytes[(row * blocks + column / 32) * block_bytes + 2 + column % 32] = 1;
  }
  return bytes;
}

struct Inputs {
  int T, C;
  Floats x, weight, bias, up;
};
Inputs inputs(int T, int C) {
  Inputs in{T, C, normal(size_t(T) * C, 1, 2), normal(size_t(C), 2), normal(size_t(C), 3), normal(size_t(T) * C, 4)};
  for (float& x : in.x) x += 0.5f;
  return in;
}

/// The chosen columns of rows `first` to `first` + T as weights of `type` read them, all memory beginning `off` floats into its allocation.
Floats through(Type type, Form form, const Inputs& in, int first, int T, size_t off = 0) {
  Ops& ops = device();
  const auto moved = [&](const Floats& of, size_t begin, size_t count) {
    Floats padded(off);
    padded.insert(padded.end(), of.begin() + std::ptrdiff_t(begin), of.begin() + std::ptrdiff_t(begin + count));
    return padded;
  };
  const size_t C = size_t(in.C), at = size_t(first) * C, n = size_t(T) * C;
  const OnDevice<float> x(ops, moved(in.x, at, n)), up(ops, moved(in.up, at, n)), weight(ops, moved(in.weight, 0, C)),
      bias(ops, moved(in.bias, 0, C)), y(ops, size_t(T) * columns(in.C).size());
  const auto w = ops.matrix({type, int64_t(columns(in.C).size()), in.C, selection(type, in.C).data()}, "weights");
  Ops::Rows rows{x + off, form};
  rows.eps = kEps;
  if (form == Form::rms_norm || form == Form::layer_norm) rows.weight = weight + off;
  if (form == Form::layer_norm) rows.bias = bias + off;
  if (form == Form::silu_mul) rows.up = up + off;
  const Ops::Product product{y, w.get()};
  ops.products({&product, 1}, rows, T);
  return y.values();
}

/// The rows in double precision, and how far float32 may be from them.
void check_rows(const std::string& what, Form form, const Inputs& in, const Floats& found) {
  const std::vector<int> chosen = columns(in.C);
  std::vector<double> expected(found.size()), allowed(found.size());
  for (int t = 0; t < in.T; ++t) {
    double mean = 0, squares = 0, size = 0;
    const float* x = &in.x[size_t(t) * in.C];
    for (int i = 0; i < in.C; ++i) size += std::fabs(x[i]), mean += x[i];
    mean = form == Form::layer_norm ? mean / in.C : 0;
    for (int i = 0; i < in.C; ++i) squares += (x[i] - mean) * (x[i] - mean);
    const double deviation = std::sqrt(squares / in.C + double(kEps));
    // a thread's additions (four columns of every 1024), then two trees of five
    const double chain = 4 * std::ceil(in.C / 1024.0) + 10;
    const double mean_error = form == Form::layer_norm ? (chain + 1) * kRounding * size / in.C : 0;
    for (size_t place = 0; place < chosen.size(); ++place) {
      const size_t at = size_t(t) * chosen.size() + place;
      const int i = chosen[place];
      const double v = x[i], w = in.weight[size_t(i)];
      if (form == Form::plain) {
        expected[at] = v;
      } else if (form == Form::rms_norm || form == Form::layer_norm) {
        // the difference: the mean's error and a rounding; the inverse root: half the sum's error, three roundings and
        // what the mean's error does to the deviation; then two products and the sum with the bias
        const double normal = (v - mean) / deviation,
                     difference = mean_error + kRounding * (std::fabs(v) + std::fabs(mean));
        const double bias = form == Form::layer_norm ? in.bias[size_t(i)] : 0;
        expected[at] = normal * w + bias;
        allowed[at] = std::fabs(w) * (std::fabs(normal) * (chain / 2 + 8 + mean_error / deviation) * kRounding +
                                      difference / deviation) +
                      2 * kRounding * (std::fabs(expected[at]) + std::fabs(bias));
      } else if (form == Form::gelu) {
        // erfc of a float32 argument: 2 eps of its rounding grow by its slope, at most 2 z² + 1 relative for z > 0, besides
        // 4 units of its own; where erfc is near 2 all of it is small
        const double z = -v * std::sqrt(0.5), erfc = std::erfc(z);
        expected[at] = 0.5 * v * erfc;
        allowed[at] = std::fabs(expected[at]) * (2 * (z > 0 ? 2 * z * z + 1 : 1) + 8 + 3) * kRounding + 1e-38;
      } else {
        expected[at] = v / (1 + std::exp(-v)) * in.up[size_t(t) * in.C + i];
        allowed[at] = std::fabs(expected[at]) * 8 * kRounding;  // exp within 2 units, sum, quotient, product
      }
    }
  }
  near(what, found, expected, allowed);
}

}  // namespace

TEST("cuda: rows of every form, as F32 weights read them") {
  for (size_t f = 0; f < std::size(kForms); ++f) {
    for (const auto& [T, C] :
         {std::pair{3, 96}, std::pair{9, 33}, std::pair{1, 88}, std::pair{2, 1408}, std::pair{1, 4224}}) {
      const Inputs in = inputs(T, C);
      check_rows(std::string(kNames[f]) + " of " + std::to_string(C), kForms[f], in,
                 through(Type::F32, kForms[f], in, 0, T));
    }
  }
}

TEST("cuda: rows as the other weights read them are the rows, rounded") {
  for (size_t f = 0; f < std::size(kForms); ++f) {
    for (const auto& [T, C] :
         {std::pair{9, 96}, std::pair{3, 352}, std::pair{10, 88}, std::pair{2, 33}, std::pair{1, 4224}}) {
      const Inputs in = inputs(T, C);
      const Floats rows = through(Type::F32, kForms[f], in, 0, T);
      Floats f16 = rows, bf16 = rows, q8 = rows;
      for (size_t i = 0; i < rows.size(); ++i) {
        f16[i] = half_to_float(float_to_half(rows[i])) + 0.0f;  // the sum with the others' zeros
        bf16[i] = bf16_to_float(float_to_bf16(rows[i])) + 0.0f;
      }
      const std::string what = std::string(kNames[f]) + " of " + std::to_string(C);
      same_bits(what + " in F16", through(Type::F16, kForms[f], in, 0, T), f16);
      same_bits(what + " in BF16", through(Type::BF16, kForms[f], in, 0, T), bf16);
      if (C % 32 != 0) continue;
      for (size_t b = 0; b < rows.size(); b += 32) {
        float most = 0;
        for (size_t i = b; i < b + 32; ++i) most = std::max(most, std::fabs(rows[i]));
        const float d = most / 127, inverse = 127 / most;
        for (size_t i = b; i < b + 32; ++i) q8[i] = std::nearbyint(rows[i] * inverse) * d + 0.0f;
      }
      same_bits(what + " in 8 bits", through(Type::Q8_0, kForms[f], in, 0, T), q8);
    }
  }
}

TEST("cuda: a prepared row is its own alone, wherever it lies") {
  const Inputs in = inputs(11, 1120);
  const std::ptrdiff_t width = std::ptrdiff_t(columns(in.C).size());
  for (size_t f = 0; f < std::size(kForms); ++f) {
    for (Type type : {Type::F32, Type::F16, Type::Q8_0}) {
      const std::string what = std::string(kNames[f]) + " in " + name(type);
      const Floats together = through(type, kForms[f], in, 0, in.T);
      same_bits(what + " at an odd address", through(type, kForms[f], in, 0, in.T, 1), together);
      for (int t : {0, 7, 8, 10}) {
        const auto at = together.begin() + std::ptrdiff_t(t) * width;
        same_bits(what + ", row " + std::to_string(t) + " alone", through(type, kForms[f], in, t, 1), {at, at + width});
      }
    }
  }
}

TEST("cuda: memory that preparing rows moves") {
  if (!device_case::counts_traffic()) throw check::Skip{"the emulator's hook build alone counts traffic"};
  const Inputs in = inputs(16, 1024);
  const double values = double(in.T) * in.C;
  for (Form form : kForms) {
    const double inputs = form == Form::silu_mul ? 2 : 1, parameters = 2.0 * in.C * 4;
    // Codes, and a scale of 8 bytes a block, which a row alone puts into sectors that it shares with seven others: 32 bytes
    // written for 8, where all that is written is 40 bytes a block.
    device_case::traffic(
        "prepare_rows",
        {.useful_writes = 0.6,
         .bytes = (inputs * 4 + 1.25) * values + parameters,
         .reason = "scales of eight rows share a sector; 64 bytes are moved to write 40, beside 128 read"},
        [&] { through(Type::Q8_0, form, in, 0, in.T); });
    device_case::traffic("prepare_rows", {.bytes = (inputs * 4 + 2) * values + parameters, .reason = ""},
                         [&] { through(Type::F16, form, in, 0, in.T); });
  }
}
