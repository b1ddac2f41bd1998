#include "train/training_pass.h"

#include "core/error.h"

namespace minigpt4 {

TrainingPass::TrainingPass(std::span<const TrainingSample> samples) {
  int32_t asked = 0;
  for (const TrainingSample& sample : samples) {
    const int32_t begin = rows.offsets.back(), length = int32_t(sample.ids.size());
    int32_t first = length;  // without a picture nothing is asked for
    for (int32_t t = length; t-- > 0;) {
      if (sample.ids[size_t(t)] < 0) first = t;
    }
    for (int32_t t = 0; t < length; ++t) {
      const bool picture = sample.ids[size_t(t)] < 0;
      ids.push_back(picture ? 0 : sample.ids[size_t(t)]);
      rows.targets.push_back(sample.targets[size_t(t)]);
      if (!picture) continue;
      image_rows.push_back(begin + t);
      asked_rows.push_back(asked + t - first);
    }
    asked += length - first;
    rows.first_rows.push_back(first);
    rows.offsets.push_back(begin + length);
    features.insert(features.end(), sample.features.begin(), sample.features.end());
  }
}

void check_sample(const TrainingSample& sample, size_t index, const SampleLimits& limits) {
  const size_t T = sample.ids.size();
  if (T == 0 || T != sample.targets.size()) {
    fail(code::argument, "sample ", index, ": ", T, " ids and ", sample.targets.size(),
         " targets, expected as many of both, one at least");
  }
  if (T > size_t(limits.context) || T > size_t(limits.max_rows)) {
    fail(code::argument, "sample ", index, ": ", T, " rows, expected at most ",
         T > size_t(limits.context) ? limits.context : limits.max_rows,
         T > size_t(limits.context) ? ", the model's context" : ", the rows of one pass (maxRows)");
  }
  size_t pictures = 0;
  for (size_t t = 0; t < T; ++t) {
    if (sample.ids[t] < -1 || sample.ids[t] >= limits.vocab || sample.targets[t] < -1 ||
        sample.targets[t] >= limits.vocab) {
      fail(code::argument, "sample ", index, ", row ", t, ": id ", sample.ids[t], " and target ", sample.targets[t],
           ", expected -1 or ids below ", limits.vocab);
    }
    if (sample.ids[t] < 0) ++pictures;
  }
  if (sample.features.size() != pictures * size_t(limits.input)) {
    fail(code::argument, "sample ", index, ": ", sample.features.size(), " feature values for ", pictures,
         " picture rows, expected ", limits.input, " a row");
  }
}

std::vector<size_t> cut_into_passes(std::span<const TrainingSample> samples, int max_rows, int max_pages) {
  std::vector<size_t> ends;
  int rows = 0, pages = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    const int length = int(samples[i].ids.size());
    if (i > 0 && (rows + length > max_rows || pages + pages_for(length) > max_pages)) {
      ends.push_back(i);
      rows = pages = 0;
    }
    rows += length;
    pages += pages_for(length);
  }
  if (!samples.empty()) ends.push_back(samples.size());
  return ends;
}

}  // namespace minigpt4
