// Proves a gradient written in double precision by central differences of the function it is said to belong to.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "check.h"

namespace ops_case {

using Doubles = std::vector<double>;

/// function(x) against gradient at up to `places` places spread over x. With a step of 1e-4 the difference is off by the
/// third derivative / 6 · 1e-8 and by rounding of the function, about 1e-16 · |value| / 1e-4: both below 1e-6 of the
/// gradient's size for functions of ordinary curvature, whose value is within 1e4 of it.
inline void check_gradient(const std::string& what, const std::function<double(const Doubles&)>& function, Doubles x,
                           const Doubles& gradient, size_t places = 40) {
  constexpr double step = 1e-4;
  double size = 0;
  for (double g : gradient) size = std::max(size, std::fabs(g));
  if (!(size > 0)) check::failed(__FILE__, __LINE__, what + ": a gradient other than zero is expected");
  for (size_t i = 0; i < x.size(); i += std::max<size_t>(1, x.size() / places)) {
    const double at = x[i];
    x[i] = at + step;
    const double above = function(x);
    x[i] = at - step;
    const double below = function(x);
    x[i] = at;
    const double difference = (above - below) / (2 * step);
    if (std::fabs(difference - gradient[i]) <= 1e-6 * size) continue;
    std::ostringstream text;
    text.precision(9);
    text << what << ": gradient " << i << " is " << gradient[i] << ", differences give " << difference;
    return check::failed(__FILE__, __LINE__, text.str());
  }
}

/// Σ a · b: of an output and the gradient that reaches it.
inline double product(const Doubles& a, const Doubles& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace ops_case
