// products: rows in every form and several weights at once have the bits of one op after the other.
#include <algorithm>

#include "check.h"
#include "ops_case.h"

using namespace minigpt4;
using namespace ops_case;

namespace {

using Form = Ops::Rows::Form;
constexpr float kEps = 1e-5f;

const char* name(Form form) {
  switch (form) {
    case Form::plain:
      return "plain";
    case Form::rms_norm:
      return "rms_norm";
    case Form::layer_norm:
      return "layer_norm";
    case Form::gelu:
      return "gelu";
    case Form::silu_mul:
      return "silu_mul";
  }
  return "";
}
constexpr Form kForms[] = {Form::plain, Form::rms_norm, Form::layer_norm, Form::gelu, Form::silu_mul};

struct Case {
  Form form;
  std::vector<Type> types;  // of the weights
  int T;
  int64_t cols;
};

std::string title(const Case& c) {
  std::string text = std::string("products of ") + name(c.form) + " rows, " + std::to_string(c.T) + " x " +
                     std::to_string(c.cols) + ", with";
  for (const Type type : c.types) text += std::string(" ") + minigpt4::name(type);
  return text;
}

/// Weight i: another number of rows each, a bias every second time, added to what is there every third.
int64_t outputs(size_t i) { return int64_t(37 + 16 * i); }

/// What a case computes with, made once for all its runs: making it takes longer than the products.
struct Inputs {
  Floats x, up, weight, bias;
  std::vector<std::vector<uint8_t>> blocks;
  std::vector<Floats> y, biases;

  explicit Inputs(const Case& c)
      : x(normal(size_t(c.T * c.cols), 1)),
        up(normal(x.size(), 2)),
        weight(normal(size_t(c.cols), 3)),
        bias(normal(size_t(c.cols), 4)) {
    for (size_t i = 0; i < c.types.size(); ++i) {
      blocks.push_back(weights(c.types[i], outputs(i), c.cols, 10 + i));
      y.push_back(normal(size_t(c.T) * size_t(outputs(i)), 20 + i));
      biases.push_back(normal(size_t(outputs(i)), 30 + i));
    }
  }
};

/// Every y, one after the other: by one call, or (apart) by an op that makes the rows and one product after the other.
Floats run(Ops& ops, const Case& c, const Inputs& in, bool apart) {
  const size_t n = in.x.size();
  const OnDevice<float> x(ops, in.x), up(ops, in.up), weight(ops, in.weight), bias(ops, in.bias), made(ops, n);
  Ops::Rows rows{.x = x, .form = c.form};
  if (c.form == Form::rms_norm || c.form == Form::layer_norm) rows.weight = weight, rows.eps = kEps;
  if (c.form == Form::layer_norm) rows.bias = bias;
  if (c.form == Form::silu_mul) rows.up = up;

  std::vector<std::unique_ptr<Matrix>> matrices;
  std::vector<std::unique_ptr<OnDevice<float>>> ys, biases;
  std::vector<Ops::Product> products;
  for (size_t i = 0; i < c.types.size(); ++i) {
    matrices.push_back(ops.matrix({c.types[i], outputs(i), c.cols, in.blocks[i].data()}, "weights"));
    ys.push_back(std::make_unique<OnDevice<float>>(ops, in.y[i]));
    biases.push_back(std::make_unique<OnDevice<float>>(ops, in.biases[i]));
    products.push_back({*ys.back(), matrices.back().get(), i % 2 ? static_cast<float*>(*biases.back()) : nullptr,
                        i % 3 == 2 ? Accumulate::yes : Accumulate::no});
  }

  if (apart) {
    const float* from = made;
    switch (c.form) {
      case Form::plain:
        from = x;
        break;
      case Form::rms_norm:
        ops.rms_norm(made, x, weight, c.T, int(c.cols), kEps);
        break;
      case Form::layer_norm:
        ops.layer_norm(made, x, weight, bias, c.T, int(c.cols), kEps);
        break;
      case Form::gelu:
        ops.gelu(made, x, int64_t(n));
        break;
      case Form::silu_mul:
        ops.silu_mul(made, x, up, int64_t(n));
        break;
    }
    for (const Ops::Product& p : products) ops.matmul(p.y, *p.w, from, p.bias, c.T, p.accumulate);
  } else {
    ops.products(products, rows, c.T);
  }
  Floats all;
  for (const auto& y : ys) {
    const Floats values = y->values();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

void check_case(const Case& c) {
  const Inputs in(c);
  const bool floats = std::any_of(c.types.begin(), c.types.end(), [](Type type) { return !is_quantized(type); });
  const auto together = [&](Ops& ops) { return run(ops, c, in, false); };
  if (!floats) {
    same_bits(title(c), on_every_level(title(c), together), run(cpu("scalar", 1), c, in, true));
    return;
  }
  on_every_kind_of_level(title(c), together, [](const Floats&, bool) {});
  for (const std::string& level : cpu_levels()) {
    Ops& ops = cpu(level, 1);
    same_bits(title(c) + " on " + level, together(ops), run(ops, c, in, true));
  }
}

}  // namespace

TEST("ops: products make rows of every form, for every type of weight") {
  std::vector<Type> types = block_types();
  types.insert(types.end(), float_types().begin(), float_types().end());
  for (const Type type : types) {
    for (const Form form : kForms) {
      for (const int T : {1, 13}) check_case({form, {type}, T, 256});
    }
  }
}

TEST("ops: several products at once are one after the other, whatever their types") {
  for (const Form form : kForms) {
    for (const int T : {1, 2, 37}) {
      check_case({form, {Type::Q4_0, Type::Q4_0, Type::Q4_0}, T, 288});
      // every way in which rows are rounded, and twice the same with another between
      check_case({form, {Type::Q4_K, Type::Q6_K, Type::F16, Type::Q2_K, Type::Q4_K, Type::F32, Type::Q8_0}, T, 512});
      check_case({form, {Type::F32, Type::BF16}, T, 33});  // floats need no whole blocks
    }
  }
}

TEST("ops: products of more rows than are made at a time") {
  // on the CPU 288; the last piece has one row
  for (const Form form : kForms) {
    check_case({form, {Type::F16, Type::Q4_K, Type::Q6_K}, 2 * 288 + 1, 256});
    check_case({form, {Type::Q5_1}, 300, 64});
  }
}

TEST("ops: the workspace of products does not grow with their rows") {
  const auto most = [](int T) {
    const std::unique_ptr<Ops> ops = make_cpu_ops({2, ""});
    const Case c{Form::silu_mul, {Type::F16, Type::Q4_0, Type::Q6_K}, T, 256};
    run(*ops, c, Inputs(c), false);
    for (const Holding& holding : ops->holdings()) {
      if (holding.owner == "workspace") return holding.bytes;
    }
    return size_t(0);
  };
  CHECK(most(288) > 0);
  CHECK_EQUAL(most(10 * 288), most(288));
}

TEST("ops: replay runs its body each time") {
  Ops& ops = cpu(cpu_levels().back(), 2);
  const OnDevice<float> x(ops, Floats{1, 2, 3}), y(ops, size_t(3));
  for (const float value : {5.0f, 7.0f}) {
    ops.upload(x, &value, sizeof value);
    ops.replay(9, [&] { ops.gelu(y, x, 3); });
    CHECK_NEAR(y.values()[0], value, 1e-4);
  }
}
