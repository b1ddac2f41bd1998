// exp and the normal distribution in float32. The same operations at every level, so the same bits.
#pragma once

namespace minigpt4::cpu::MINIGPT4_LEVEL {

/// exp(x) within 2 units in the last place for -87.3 <= x <= 88; 0 below, exp(88) above, NaN for NaN.
/// x = n ln 2 + r, |r| <= ln 2 / 2; e^r by a polynomial of degree 6 whose own error is 3e-9.
inline F exp_of(F x) {
  const F lowest = set1(-87.3f);
  const F y = min_of(set1(88.0f), max_of(lowest, x));  // in this order NaN passes
  const F shifted = fma(y, set1(1.44269504f), set1(12582912.0f));
  const F n = sub(shifted, set1(12582912.0f));
  F r = fma(n, set1(-0.693145752f), y);  // ln 2 in two parts, the first exact in 16 bits
  r = fma(n, set1(-1.42860677e-6f), r);
  F p = set1(0.00138144649f);
  p = fma(p, r, set1(0.00836878084f));
  p = fma(p, r, set1(0.0416683927f));
  p = fma(p, r, set1(0.166665196f));
  p = fma(p, r, set1(0.49999994f));
  p = fma(mul(r, r), p, r);
  p = add(p, set1(1.0f));
  return if_less(x, lowest, zero(), scale_by_power(p, shifted));
}

/// x · Φ(x), Φ the normal distribution. With a = |x|, Φ(-a) = exp(-a²/2) · g(1 / (1 + 0.3 a)), g a polynomial fitted
/// for a <= 13 with relative error 6e-8; beyond that Φ(-a) is 0 in float32. Rounding included the result is within
/// 1e-6 · max(1, |x|) · Φ of the exact one, for negative x relative to |x| Φ(-a) within 2e-5 where that is not tiny.
inline F gelu_of(F x) {
  const F a = abs_of(x);
  const F t = div(set1(1.0f), fma(set1(0.3f), a, set1(1.0f)));
  F g = set1(0.0382710956f);
  g = fma(g, t, set1(-0.168643966f));
  g = fma(g, t, set1(0.227578864f));
  g = fma(g, t, set1(-0.0752664506f));
  g = fma(g, t, set1(0.141676307f));
  g = fma(g, t, set1(0.0950508788f));
  g = fma(g, t, set1(0.121825941f));
  g = fma(g, t, set1(0.119500987f));
  g = fma(g, t, set1(6.38353049e-06f));
  const F tail = mul(exp_of(mul(mul(a, a), set1(-0.5f))), g);
  return mul(x, if_less(x, zero(), tail, sub(set1(1.0f), tail)));
}

/// x / (1 + exp(-x)).
inline F silu_of(F x) { return div(x, add(set1(1.0f), exp_of(sub(zero(), x)))); }

}  // namespace minigpt4::cpu::MINIGPT4_LEVEL
