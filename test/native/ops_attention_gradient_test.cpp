// attend_dx against a gradient in double precision, which central differences of the attention prove.
#include <cmath>

#include "check.h"
#include "finite_difference.h"
#include "ops_case.h"

using namespace minigpt4;
using namespace ops_case;

namespace {

struct Sequence {
  int queries, keys;
};
struct Shape {
  std::vector<Sequence> sequences;
  int H, kv_heads, D;
  int rows() const {
    int n = 0;
    for (const Sequence& s : sequences) n += s.queries;
    return n;
  }
  int keys() const {
    int n = 0;
    for (const Sequence& s : sequences) n += s.keys;
    return n;
  }
};

struct Inputs {
  Floats q, k, v, dy;
};
Inputs inputs(const Shape& s) {
  const size_t wide = size_t(s.rows()) * s.H * s.D, narrow = size_t(s.keys()) * s.kv_heads * s.D;
  return {normal(wide, 161), normal(narrow, 162), normal(narrow, 163), normal(wide, 164)};
}

float scale_of(const Shape& s) { return float(1 / std::sqrt(double(s.D))); }

/// dq, dk, dv one after the other.
Floats run(Ops& ops, const Shape& s, const Inputs& in) {
  std::vector<int32_t> q_offsets{0}, k_offsets{0};
  for (const Sequence& of : s.sequences) {
    q_offsets.push_back(q_offsets.back() + of.queries);
    k_offsets.push_back(k_offsets.back() + of.keys);
  }
  const size_t narrow = size_t(s.rows()) * s.kv_heads * s.D;
  const OnDevice<float> q(ops, in.q), k(ops, in.k), v(ops, in.v), dy(ops, in.dy), dq(ops, in.q.size(), NAN),
      dk(ops, narrow, NAN), dv(ops, narrow, NAN);
  const OnDevice<int32_t> q_there(ops, q_offsets), k_there(ops, k_offsets);
  Ops::AttentionGradient a;
  a.dq = dq, a.dk = dk, a.dv = dv, a.dy = dy, a.q = q, a.k = k, a.v = v;
  a.q_offsets = q_there, a.k_offsets = k_there;
  a.sequences = int(s.sequences.size()), a.H = s.H, a.kv_heads = s.kv_heads, a.D = s.D, a.scale = scale_of(s);
  ops.attend_dx(a);
  Floats all = dq.values();
  for (const OnDevice<float>* more : {&dk, &dv}) {
    const Floats values = more->values();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

/// Where sequence b's things begin.
struct Place {
  int query = 0, key = 0;
};

/// body(query row, first key row, keys seen, head, key-value head, first key asked for, its row in dk) for every query.
template <class Body>
void each_query(const Shape& s, const Body& body) {
  Place at;
  for (const Sequence& of : s.sequences) {
    for (int i = 0; i < of.queries; ++i) {
      for (int h = 0; h < s.H; ++h) {
        body(at.query + i, at.key, of.keys - of.queries + i + 1, h, h / (s.H / s.kv_heads), of.keys - of.queries,
             at.query);
      }
    }
    at.query += of.queries;
    at.key += of.keys;
  }
}

double dot(const double* a, const double* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}
double size_of(const double* a, const double* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += std::fabs(a[i] * b[i]);
  return sum;
}

Doubles probabilities(const Shape& s, const double* q, const double* k, int seen, int stride) {
  Doubles p(static_cast<size_t>(seen));
  double most = -INFINITY, sum = 0;
  for (int j = 0; j < seen; ++j) most = std::max(most, p[j] = scale_of(s) * dot(q, k + j * stride, s.D));
  for (double& value : p) sum += value = std::exp(value - most);
  for (double& value : p) value /= sum;
  return p;
}

/// Σ y · dy.
double forward(const Shape& s, const Doubles& q, const Doubles& k, const Doubles& v, const Doubles& dy) {
  const int D = s.D, stride = s.kv_heads * D;
  double sum = 0;
  each_query(s, [&](int row, int key, int seen, int h, int kv, int, int) {
    const size_t at = size_t(row * s.H + h) * D, from = size_t(key * s.kv_heads + kv) * D;
    const Doubles p = probabilities(s, &q[at], &k[from], seen, stride);
    for (int j = 0; j < seen; ++j) sum += p[j] * dot(&v[from + size_t(j) * stride], &dy[at], D);
  });
  return sum;
}

struct Gradient {
  Doubles expected, allowed;  // dq, dk, dv one after the other
};

Gradient gradient(const Shape& s, const Inputs& in) {
  const int D = s.D, stride = s.kv_heads * D;
  const Doubles q(in.q.begin(), in.q.end()), k(in.k.begin(), in.k.end()), v(in.v.begin(), in.v.end()),
      dy(in.dy.begin(), in.dy.end());
  const size_t narrow = size_t(s.rows()) * stride;
  Doubles dq(q.size()), dk(narrow), dv(narrow), dq_off(q.size()), dk_off(narrow), dv_off(narrow);
  const double scale = scale_of(s);
  each_query(s, [&](int row, int key, int seen, int h, int kv, int first_asked, int first_row) {
    const size_t at = size_t(row * s.H + h) * D, from = size_t(key * s.kv_heads + kv) * D;
    const Doubles p = probabilities(s, &q[at], &k[from], seen, stride);
    Doubles dp(p.size());
    double total = 0, total_size = 0, score_error = 0, dp_error = 0, largest_score = 0;
    for (int j = 0; j < seen; ++j) {
      const double *key_row = &k[from + size_t(j) * stride], *value_row = &v[from + size_t(j) * stride];
      dp[j] = dot(value_row, &dy[at], D);
      total += p[j] * dp[j];
      total_size += std::fabs(p[j] * dp[j]);
      score_error = std::max(score_error, (D + 2) * scale * size_of(&q[at], key_row, D));
      largest_score = std::max(largest_score, 2 * scale * std::fabs(dot(&q[at], key_row, D)));
      dp_error = std::max(dp_error, (D + 1) * size_of(value_row, &dy[at], D));
    }
    // In units of one rounding. A probability, relative: the scores' errors and the rounding of their difference to the
    // largest, in numerator and sum; exp (4) in both; the sum's chain by lane and tree; quotient and product.
    const double p_error = 2 * (score_error + largest_score) + 8 + seen / 16 + 5 + 3;
    const double total_error = total_size * (p_error + seen / 16 + 6) + dp_error;
    // Sums over queries: chains of 48, and one addition for each chain and head.
    const double chains = 48 + double(s.H / s.kv_heads) * (s.rows() / 48 + 1) + 3;
    for (int j = 0; j < seen; ++j) {
      const double ds = p[j] * (dp[j] - total);
      const double ds_error = p[j] * ((p_error + 3) * std::fabs(dp[j] - total) + dp_error + total_error);
      const size_t to = size_t((first_row + j - first_asked) * s.kv_heads + kv) * D;
      for (int d = 0; d < D; ++d) {
        const double key_value = scale * k[from + size_t(j) * stride + d], query = scale * q[at + d];
        dq[at + d] += ds * key_value;
        dq_off[at + d] += std::fabs(key_value) * (ds_error + std::fabs(ds) * (seen + 2));
        if (j < first_asked) continue;
        dk[to + d] += ds * query;
        dk_off[to + d] += std::fabs(query) * (ds_error + std::fabs(ds) * chains);
        dv[to + d] += p[j] * dy[at + d];
        dv_off[to + d] += std::fabs(dy[at + d]) * p[j] * (p_error + chains);
      }
    }
  });
  Gradient all{dq, dq_off};
  for (const Doubles* more : {&dk, &dv}) all.expected.insert(all.expected.end(), more->begin(), more->end());
  for (const Doubles* more : {&dk_off, &dv_off}) all.allowed.insert(all.allowed.end(), more->begin(), more->end());
  for (double& value : all.allowed) value *= kRounding;
  return all;
}

}  // namespace

TEST("ops: attend_dx") {
  for (const Shape& s :
       {Shape{{{1, 1}}, 1, 1, 8}, Shape{{{13, 13}, {5, 40}, {1, 17}}, 4, 2, 64},
        Shape{{{100, 131}, {49, 49}}, 2, 2, 88}, Shape{{{50, 50}}, 3, 1, 128}, Shape{{{0, 3}, {7, 7}}, 2, 1, 17}}) {
    const Inputs in = inputs(s);
    const Gradient of = gradient(s, in);
    near("attend_dx", on_every_level("attend_dx", [&](Ops& ops) { return run(ops, s, in); }), of.expected, of.allowed);
  }
}

TEST("ops: the attention's gradient is that of the attention") {
  const Shape s{{{6, 6}, {4, 9}}, 4, 2, 8};
  const Inputs in = inputs(s);
  const Doubles q(in.q.begin(), in.q.end()), k(in.k.begin(), in.k.end()), v(in.v.begin(), in.v.end()),
      dy(in.dy.begin(), in.dy.end());
  const Doubles all = gradient(s, in).expected;
  const size_t narrow = size_t(s.rows()) * s.kv_heads * s.D, stride = size_t(s.kv_heads) * s.D;
  const Doubles dq(all.begin(), all.begin() + ptrdiff_t(q.size()));
  check_gradient("attention by q", [&](const Doubles& x) { return forward(s, x, k, v, dy); }, q, dq, 1000);
  // Gradients of the keys that stand last in their sequences; the first 5 keys of the second are not asked for.
  const size_t first_key[] = {0, 11 * stride}, rows[] = {6 * stride, 4 * stride};
  for (const bool values : {false, true}) {
    size_t at = q.size() + (values ? narrow : 0);
    for (int b = 0; b < 2; ++b) {
      const ptrdiff_t key = ptrdiff_t(first_key[b]), n = ptrdiff_t(rows[b]);
      const auto replaced = [&](const Doubles& x) {
        Doubles there = values ? v : k;
        std::copy(x.begin(), x.end(), there.begin() + key);
        return values ? forward(s, q, k, there, dy) : forward(s, q, there, v, dy);
      };
      const Doubles& source = values ? v : k;
      check_gradient(values ? "attention by v" : "attention by k", replaced,
                     Doubles(source.begin() + key, source.begin() + key + n),
                     Doubles(all.begin() + ptrdiff_t(at), all.begin() + ptrdiff_t(at) + n), 1000);
      at += rows[b];
    }
  }
}

TEST("ops: a sequence's attend_dx does not depend on its batch") {
  const Shape s{{{60, 75}, {3, 3}, {33, 64}}, 4, 2, 88};
  const Inputs in = inputs(s);
  for (const std::string& level : cpu_levels()) {
    Ops& ops = cpu(level, 2);
    const Floats together = run(ops, s, in);
    Place at;
    for (const Sequence& of : s.sequences) {
      const Shape alone{{of}, s.H, s.kv_heads, s.D};
      const ptrdiff_t q_row = s.H * s.D, kv_row = s.kv_heads * s.D;
      const auto slice = [](const Floats& x, ptrdiff_t from, ptrdiff_t n) {
        return Floats(x.begin() + from, x.begin() + from + n);
      };
      const Inputs own{slice(in.q, at.query * q_row, of.queries * q_row),
                       slice(in.k, at.key * kv_row, of.keys * kv_row), slice(in.v, at.key * kv_row, of.keys * kv_row),
                       slice(in.dy, at.query * q_row, of.queries * q_row)};
      Floats expected = slice(together, at.query * q_row, of.queries * q_row);
      for (const ptrdiff_t part : {s.rows() * q_row, s.rows() * (q_row + kv_row)}) {
        const Floats more = slice(together, part + at.query * kv_row, of.queries * kv_row);
        expected.insert(expected.end(), more.begin(), more.end());
      }
      same_bits("attend_dx alone on " + level, run(ops, alone, own), expected);
      at.query += of.queries;
      at.key += of.keys;
    }
  }
}
