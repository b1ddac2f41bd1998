// attend_dx on the device against a gradient in double precision; and that a sequence's results are its own.
#include <cmath>

#include "device_case.h"

using namespace minigpt4;
using device_case::device;
using device_case::Floats;
using ops_case::kRounding;
using ops_case::OnDevice;

namespace {

struct Sequence {
  int queries, keys;
};
struct Shape {
  std::vector<Sequence> sequences;
  int H, kv_heads, D;
  int queries() const { return sum(&Sequence::queries); }
  int keys() const { return sum(&Sequence::keys); }

 private:
  int sum(int Sequence::* of) const {
    int n = 0;
    for (const Sequence& s : sequences) n += s.*of;
    return n;
  }
};

struct Inputs {
  Floats q, k, v, dy;
  explicit Inputs(const Shape& s)
      : q(ops_case::normal(size_t(s.queries()) * size_t(s.H * s.D), 161)),
        k(ops_case::normal(size_t(s.keys()) * size_t(s.kv_heads * s.D), 162)),
        v(ops_case::normal(k.size(), 163)),
        dy(ops_case::normal(q.size(), 164)) {}
};

float scale_of(const Shape& s) { return 1 / std::sqrt(float(s.D)); }

/// dq, dk, dv one after the other, of sequences [first, last).
Floats run(Ops& ops, const Shape& s, const Inputs& in, size_t first, size_t last) {
  std::vector<int32_t> q_offsets{0}, k_offsets{0};
  int q_begin = 0, k_begin = 0;
  for (size_t b = 0; b < last; ++b) {
    if (b < first) {
      q_begin += s.sequences[b].queries, k_begin += s.sequences[b].keys;
    } else {
      q_offsets.push_back(q_offsets.back() + s.sequences[b].queries);
      k_offsets.push_back(k_offsets.back() + s.sequences[b].keys);
    }
  }
  const auto part = [](const Floats& of, int begin, int rows, int width) {
    return Floats(of.begin() + int64_t(begin) * width, of.begin() + int64_t(begin + rows) * width);
  };
  const int wide = s.H * s.D, narrow = s.kv_heads * s.D, rows = q_offsets.back(), keys = k_offsets.back();
  const OnDevice<float> q(ops, part(in.q, q_begin, rows, wide)), dy(ops, part(in.dy, q_begin, rows, wide)),
      k(ops, part(in.k, k_begin, keys, narrow)), v(ops, part(in.v, k_begin, keys, narrow)),
      dq(ops, size_t(rows * wide), NAN), dk(ops, size_t(rows * narrow), NAN), dv(ops, size_t(rows * narrow), NAN);
  const OnDevice<int32_t> q_there(ops, q_offsets), k_there(ops, k_offsets);
  Ops::AttentionGradient a;
  a.dq = dq, a.dk = dk, a.dv = dv, a.dy = dy, a.q = q, a.k = k, a.v = v;
  a.q_offsets = q_there, a.k_offsets = k_there;
  a.sequences = int(last - first), a.H = s.H, a.kv_heads = s.kv_heads, a.D = s.D, a.scale = scale_of(s);
  ops.attend_dx(a);
  Floats all = dq.values();
  for (const OnDevice<float>* more : {&dk, &dv}) {
    const Floats values = more->values();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

/// A sum and what float32 may be off by.
struct Bounded {
  double value = 0, off = 0;
};
/// a · b over D: a chain of fused products.
Bounded dot(const float* a, const float* b, int D) {
  Bounded sum;
  for (int d = 0; d < D; ++d) sum.value += double(a[d]) * b[d], sum.off += std::fabs(double(a[d]) * b[d]);
  sum.off *= D * kRounding;
  return sum;
}

struct Expected {
  std::vector<Bounded> dq, dk, dv;
};

/// One query and head: adds its part to dq, dk and dv. k, v: the first key seen; dk, dv: of the first key asked for.
void add_query(Expected& to, const Shape& s, const float* q, const float* dy, const float* k, const float* v, int seen,
               int first_asked, int chain, size_t dq, size_t dk) {
  const int D = s.D, stride = s.kv_heads * D;
  const double scale = scale_of(s);
  std::vector<Bounded> p(static_cast<size_t>(seen)), dp(p.size());
  double most = -INFINITY, total = 0, score_off = 0;
  for (int j = 0; j < seen; ++j) {
    const Bounded score = dot(q, k + j * stride, D);
    p[j].value = score.value * scale;
    most = std::max(most, p[j].value);
    // twice rounded: the factor and the product with it
    score_off = std::max(score_off, score.off * scale + 2 * kRounding * std::fabs(p[j].value));
    dp[j] = dot(dy, v + j * stride, D);
  }
  for (Bounded& each : p) total += each.value = std::exp(each.value - most);
  // A probability is 2^(score - log2 of the sum): its relative error is the errors of both. The sum's: its scores' and 4 of
  // 2^x, as many for each of seen / 16 tiles where a larger score may appear, the chains over tiles and lanes; its logarithm
  // is as large as the scores are (`size`), rounded, and so is the difference. 4 of the probability's own 2^x.
  const double size = std::fabs(most) + std::log(double(seen) + 1) + 1;
  const double p_off = 2 * score_off + kRounding * (4 * size + 8 + 6.0 * seen / 16 + seen / 8.0 + 8);
  Bounded product;  // Σ p · dp
  for (int j = 0; j < seen; ++j) {
    p[j].value /= total;
    p[j].off = p[j].value * p_off;
    product.value += p[j].value * dp[j].value;
    product.off += p[j].value * (dp[j].off + std::fabs(dp[j].value) * 2 * p_off);
  }
  for (int j = 0; j < seen; ++j) {
    const double difference = dp[j].value - product.value;
    const double ds = p[j].value * difference;
    const double ds_off = p[j].off * std::fabs(difference) + p[j].value * (dp[j].off + product.off) +
                          2 * kRounding * (std::fabs(ds) + p[j].value * std::fabs(dp[j].value));
    for (int d = 0; d < D; ++d) {
      const double key = scale * k[j * stride + d], query = scale * q[d];
      to.dq[dq + size_t(d)].value += ds * key;
      to.dq[dq + size_t(d)].off += std::fabs(key) * (ds_off + std::fabs(ds) * (seen + 2) * kRounding);
      if (j < first_asked) continue;
      const size_t at = dk + size_t(j - first_asked) * size_t(stride) + size_t(d);
      to.dk[at].value += ds * query;
      to.dk[at].off += std::fabs(query) * (ds_off + std::fabs(ds) * (chain + 2) * kRounding);
      to.dv[at].value += p[j].value * dy[d];
      to.dv[at].off += std::fabs(double(dy[d])) * (p[j].off + p[j].value * chain * kRounding);
    }
  }
}

Expected gradient(const Shape& s, const Inputs& in) {
  const size_t wide = size_t(s.H * s.D), narrow = size_t(s.kv_heads * s.D);
  const int group = s.H / s.kv_heads;
  Expected all;
  all.dq.resize(in.q.size());
  all.dk.resize(size_t(s.queries()) * narrow);
  all.dv.resize(all.dk.size());
  size_t query = 0, key = 0;
  for (const Sequence& of : s.sequences) {
    for (int i = 0; i < of.queries; ++i) {
      for (int h = 0; h < s.H; ++h) {
        const size_t at = (query + size_t(i)) * wide + size_t(h * s.D), head = size_t(h / group * s.D);
        add_query(all, s, &in.q[at], &in.dy[at], &in.k[key * narrow + head], &in.v[key * narrow + head],
                  of.keys - of.queries + i + 1, of.keys - of.queries, of.queries * group, at, query * narrow + head);
      }
    }
    query += size_t(of.queries), key += size_t(of.keys);
  }
  return all;
}

}  // namespace

TEST("cuda: attend_dx") {
  for (const Shape& s :
       {Shape{{{1, 1}}, 1, 1, 8}, Shape{{{13, 13}, {5, 40}, {1, 17}}, 4, 2, 64}, Shape{{{70, 101}, {49, 49}}, 2, 2, 88},
        Shape{{{50, 50}}, 3, 1, 128}, Shape{{{0, 3}, {7, 7}}, 2, 1, 17}, Shape{{{35, 40}}, 2, 1, 160},
        Shape{{{33, 33}}, 1, 1, 2}, Shape{{{20, 22}}, 1, 1, 256}}) {
    const Inputs in(s);
    const Expected of = gradient(s, in);
    std::vector<double> expected, allowed;
    for (const std::vector<Bounded>* part : {&of.dq, &of.dk, &of.dv}) {
      for (const Bounded& each : *part) expected.push_back(each.value), allowed.push_back(each.off + 1e-30);
    }
    ops_case::near("attend_dx, heads of " + std::to_string(s.D), run(device(), s, in, 0, s.sequences.size()), expected,
                   allowed);
  }
}

TEST("cuda: a sequence's attend_dx does not depend on its batch") {
  for (const Shape& s :
       {Shape{{{60, 75}, {3, 3}, {0, 9}, {33, 64}}, 4, 2, 88}, Shape{{{20, 20}, {17, 30}}, 1, 1, 200}}) {
    const Inputs in(s);
    const Floats together = run(device(), s, in, 0, s.sequences.size());
    const int64_t wide = s.H * s.D, narrow = s.kv_heads * s.D, dk = s.queries() * wide, dv = dk + s.queries() * narrow;
    int64_t begin = 0;
    for (size_t b = 0; b < s.sequences.size(); ++b) {
      const int64_t end = begin + s.sequences[b].queries;
      Floats expected(together.begin() + begin * wide, together.begin() + end * wide);
      for (const int64_t part : {dk, dv}) {
        expected.insert(expected.end(), together.begin() + part + begin * narrow,
                        together.begin() + part + end * narrow);
      }
      device_case::same("attend_dx alone", {run(device(), s, in, b, b + 1), expected});
      begin = end;
    }
  }
}

TEST("cuda: attend_dx refuses heads it has no place for") {
  for (int D : {1, 257}) {
    const Shape s{{{3, 3}}, 1, 1, D};
    const Inputs in(s);
    CHECK_ERROR(code::unsupported, "2 to 256 wide", run(device(), s, in, 0, 1));
  }
}

TEST("cuda: memory traffic of attend_dx") {
  for (int D : {64, 88, 128}) {
    const Shape s{{{64, 96}}, 2, 2, D};
    const Inputs in(s);
    device_case::TrafficBounds bounds;
    bounds.useful_reads = 0.7;
    bounds.reason = "every block looks for tiles, of which there are few here, and two numbers of a query are read";
    if (D == 88) {
      bounds.wavefronts = 1.08;
      bounds.reason += "; a padded row of 88 does not end at the last bank, so copies of the next one meet it again";
    }
    device_case::traffic("gradient_keys_kernel", bounds, [&] { run(device(), s, in, 0, 1); });
    device_case::traffic("gradient_queries_kernel", bounds, [&] { run(device(), s, in, 0, 1); });
    bounds.useful_writes = 0.12;
    bounds.reason += "; two numbers of a query are written";
    device_case::traffic("gradient_statistics_kernel", bounds, [&] { run(device(), s, in, 0, 1); });
  }
}
