#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "train/training_pass.h"

namespace minigpt4 {
namespace {

constexpr const char* kOwner = "training";

MiniGpt4& seeing(MiniGpt4& model) {
  if (!model.sees()) fail(code::argument, "this is a language model alone, expected one with a projection to train");
  return model;
}

TrainerOptions checked(const TrainerOptions& o) {
  const auto share = [](double value, const char* what) {
    if (!(value >= 0 && value < 1)) fail(code::argument, what, ": expected a number from 0 to below 1, found ", value);
  };
  share(o.beta1, "beta1");
  share(o.beta2, "beta2");
  if (!(o.epsilon > 0) || !std::isfinite(o.epsilon))
    fail(code::argument, "epsilon: expected a positive number, found ", o.epsilon);
  if (!(o.weight_decay >= 0) || !std::isfinite(o.weight_decay))
    fail(code::argument, "weight decay: expected a number from 0, found ", o.weight_decay);
  if (o.max_rows < 1) fail(code::argument, "rows of a pass: expected 1 at least, found ", o.max_rows);
  return o;
}

/// What computes the language model, all of it.
Ops& whole(const MiniGpt4& model) {
  const std::vector<LlamaRun> runs = model.llama_runs();
  if (runs.size() > 1) {
    fail(code::unsupported, "training needs the whole language model in one place, but ", runs.back().range.count(),
         " of its ", model.llama().depth, " layers are on the GPU and the rest is on the CPU: load it with gpuLayers ",
         model.llama().depth, " or 0");
  }
  return *runs.front().ops;
}

/// A projection's numbers, from the backend that computes the picture's side.
ProjectionValues values_of(Ops& ops, const Linear& projection) {
  const int64_t output = projection.weight->rows, input = projection.weight->cols;
  std::vector<int32_t> rows(static_cast<size_t>(output));
  std::iota(rows.begin(), rows.end(), 0);
  const Buffer<int32_t> ids(ops, output, kOwner);
  const Buffer<float> weight(ops, output * input, kOwner);
  ops.upload(ids, rows.data(), rows.size() * sizeof(int32_t));
  ops.embed(weight, *projection.weight, ids, int(output));
  ProjectionValues values{std::vector<float>(size_t(output * input)), std::vector<float>(size_t(output))};
  ops.download(values.weight.data(), weight, values.weight.size() * sizeof(float));
  ops.download(values.bias.data(), projection.bias.get(), values.bias.size() * sizeof(float));
  return values;
}

}  // namespace

Trainer::Parameters::Parameters(Ops& ops, int64_t output, int64_t input)
    : weight(ops, output * input, kOwner), bias(ops, output, kOwner) {}

Trainer::Trainer(MiniGpt4& model, const TrainerOptions& options)
    : model_(seeing(model)),
      ops_(whole(model)),
      options_(checked(options)),
      input_(model.projection().input),
      output_(model.projection().output),
      values_(ops_, output_, input_),
      gradient_(ops_, output_, input_),
      first_(ops_, output_, input_),
      second_(ops_, output_, input_),
      llama_(ops_, model.llama(), model.llama_weights(), options.max_rows),
      x_(ops_, int64_t(options.max_rows) * output_, kOwner),
      dx_(ops_, int64_t(options.max_rows) * output_, kOwner),
      features_(ops_, int64_t(options.max_rows) * input_, kOwner),
      tokens_(ops_, int64_t(options.max_rows) * output_, kOwner),
      image_rows_(ops_, options.max_rows, kOwner) {
  const ProjectionValues start = values_of(model.vision_ops(), model.projection_weights());
  upload(values_, start);
  matrix_ = ops_.matrix({Type::F32, output_, input_, start.weight.data()}, kOwner);
  clear(gradient_);
  clear(first_);
  clear(second_);
}

BatchLoss Trainer::accumulate(const std::vector<TrainingSample>& samples, const Stop& stop) {
  // a pass adds its part with its last op; a later one may fail when an earlier one has done that
  std::optional<Parameters> before;
  const auto keep = [&] {
    before.emplace(ops_, output_, input_);
    copy(*before, gradient_);
  };
  try {
    BatchLoss loss = go(samples, true, stop, keep);
    targets_ += loss.targets;
    return loss;
  } catch (...) {
    if (before) copy(gradient_, *before);
    throw;
  }
}

BatchLoss Trainer::evaluate(const std::vector<TrainingSample>& samples, const Stop& stop) {
  return go(samples, false, stop, [] {});
}

BatchLoss Trainer::go(const std::vector<TrainingSample>& samples, bool gradients, const Stop& stop,
                      const std::function<void()>& before_several) {
  const SampleLimits limits{model_.llama().vocab, llama_.max_rows(), model_.llama().context, int(input_)};
  for (size_t i = 0; i < samples.size(); ++i) check_sample(samples[i], i, limits);
  BatchLoss loss;
  size_t begin = 0;
  const std::span all(samples);
  const std::vector<size_t> ends = cut_into_passes(all, llama_.max_rows(), llama_.max_pages());
  if (ends.size() > 1) before_several();
  for (const size_t end : ends) {
    if (!pass(all.subspan(begin, end - begin), gradients, stop, loss))
      fail(code::aborted, "training was aborted in the middle of a batch");
    begin = end;
  }
  return loss;
}

/// False: stopped early.
bool Trainer::pass(std::span<const TrainingSample> samples, bool gradients, const Stop& stop, BatchLoss& loss) {
  const TrainingPass p(samples);
  const int T = p.rows.rows(), n = int(p.image_rows.size());
  llama_.embed(x_, p.ids.data(), T);
  if (n > 0) {
    ops_.upload(features_, p.features.data(), p.features.size() * sizeof(float));
    ops_.matmul(tokens_, *matrix_, features_, values_.bias, n, Accumulate::no);
    ops_.upload(image_rows_, p.image_rows.data(), p.image_rows.size() * sizeof(int32_t));
    ops_.scatter_rows(x_, tokens_, image_rows_, n, int(output_));
  }

  std::vector<float> losses;
  if (!llama_.run(x_, p.rows, losses, gradients ? dx_.get() : nullptr, stop)) return false;
  for (size_t b = 0; b < samples.size(); ++b) {
    BatchLoss::Sample sample;
    for (int t = p.rows.offsets[b]; t < p.rows.offsets[b + 1]; ++t) {
      if (p.rows.targets[size_t(t)] < 0) continue;
      sample.loss += double(losses[size_t(t)]);
      ++sample.targets;
    }
    loss.samples.push_back(sample);
    loss.loss += sample.loss;
    loss.targets += sample.targets;
  }
  if (!gradients || n == 0) return true;
  ops_.upload(image_rows_, p.asked_rows.data(), p.asked_rows.size() * sizeof(int32_t));
  ops_.gather_rows(tokens_, dx_, image_rows_, n, int(output_));
  ops_.matmul_dw(gradient_.weight, tokens_, features_, n, output_, input_);
  ops_.bias_db(gradient_.bias, tokens_, n, int(output_));
  return true;
}

GradientSum Trainer::gradient() { return {download(gradient_), targets_}; }

void Trainer::set_gradient(const GradientSum& gradient) {
  check(gradient.sum, "gradient");
  if (gradient.targets < 0) fail(code::argument, "gradient: ", gradient.targets, " targets, expected 0 at least");
  upload(gradient_, gradient.sum);
  targets_ = gradient.targets;
}

void Trainer::discard_gradient() {
  clear(gradient_);
  targets_ = 0;
}

Trainer::Step Trainer::apply(double rate, double max_norm) {
  if (!(rate >= 0) || !std::isfinite(rate)) fail(code::argument, "learning rate ", rate, ", expected a number from 0");
  if (!(max_norm >= 0)) fail(code::argument, "largest gradient norm ", max_norm, ", expected a number from 0");
  if (targets_ == 0) fail(code::argument, "no gradient was accumulated, expected a batch with targets before a step");
  const double squares =
      ops_.squared_sum(gradient_.weight, output_ * input_) + ops_.squared_sum(gradient_.bias, output_);
  const double norm = std::sqrt(squares) / double(targets_);
  if (!std::isfinite(norm))
    fail(code::nan_loss, "the gradient of step ", step_ + 1, " has the norm ", norm, ", expected a finite one");
  // as torch.nn.utils.clip_grad_norm_ shortens it
  const double clip = max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
  Ops::Adamw a{
      rate,     options_.beta1, options_.beta2, options_.epsilon, options_.weight_decay, clip / double(targets_),
      step_ + 1};
  ops_.adamw(values_.weight, first_.weight, second_.weight, gradient_.weight, output_ * input_, a);
  a.weight_decay = 0;
  ops_.adamw(values_.bias, first_.bias, second_.bias, gradient_.bias, output_, a);
  ops_.refill(*matrix_, values_.weight);
  ++step_;
  discard_gradient();
  return {norm, clip < 1};
}

TrainerState Trainer::state() { return {step_, download(values_), download(first_), download(second_)}; }

void Trainer::restore(const TrainerState& state) {
  check(state.values, "projection");
  check(state.first_moment, "first moment");
  check(state.second_moment, "second moment");
  if (state.step < 0) fail(code::argument, "step ", state.step, ", expected 0 at least");
  upload(values_, state.values);
  upload(first_, state.first_moment);
  upload(second_, state.second_moment);
  ops_.refill(*matrix_, values_.weight);
  step_ = state.step;
  discard_gradient();
}

ImageTokens Trainer::project(const std::vector<float>& features) {
  const size_t rows = features.size() / size_t(input_);
  if (rows < 1 || features.size() != rows * size_t(input_) || rows > size_t(llama_.max_rows())) {
    fail(code::shape, "features: ", features.size(), " values, expected 1 to ", llama_.max_rows(), " rows of ", input_);
  }
  ops_.upload(features_, features.data(), features.size() * sizeof(float));
  ops_.matmul(tokens_, *matrix_, features_, values_.bias, int(rows), Accumulate::no);
  ImageTokens image{int(rows), int(output_), std::vector<float>(rows * size_t(output_))};
  ops_.download(image.values.data(), tokens_, image.values.size() * sizeof(float));
  return image;
}

ProjectionValues Trainer::download(const Parameters& from) {
  ProjectionValues values{std::vector<float>(size_t(output_) * size_t(input_)), std::vector<float>(size_t(output_))};
  ops_.download(values.weight.data(), from.weight, values.weight.size() * sizeof(float));
  ops_.download(values.bias.data(), from.bias, values.bias.size() * sizeof(float));
  return values;
}

void Trainer::upload(Parameters& to, const ProjectionValues& from) {
  ops_.upload(to.weight, from.weight.data(), from.weight.size() * sizeof(float));
  ops_.upload(to.bias, from.bias.data(), from.bias.size() * sizeof(float));
}

void Trainer::check(const ProjectionValues& values, const char* what) const {
  if (int64_t(values.weight.size()) == output_ * input_ && int64_t(values.bias.size()) == output_) return;
  fail(code::shape, what, ": ", values.weight.size(), " weights and ", values.bias.size(), " biases, expected ",
       output_, " x ", input_, " and ", output_);
}

void Trainer::copy(Parameters& to, const Parameters& from) {
  ops_.copy(to.weight, from.weight, size_t(output_) * size_t(input_) * sizeof(float));
  ops_.copy(to.bias, from.bias, size_t(output_) * sizeof(float));
}

void Trainer::clear(Parameters& of) {
  ops_.fill(of.weight, 0, output_ * input_);
  ops_.fill(of.bias, 0, output_);
}

}  // namespace minigpt4
