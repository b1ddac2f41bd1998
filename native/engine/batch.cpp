#include "engine/batch.h"

#include <algorithm>

namespace minigpt4 {
namespace {

void append(const std::vector<BatchPart>& parts) {
  for (const BatchPart& part : parts) {
    for (const Slot& slot : part.rows) part.sequence->append(slot);
  }
}

}  // namespace

BatchRunner::Run::Run(MiniGpt4& model, const LlamaRun& of, const Sizes& sizes, int max_logits)
    : ops(*of.ops),
      cache(ops, model.llama(), sizes.kv_type, sizes.pages, of.range),
      llama(ops, model.llama(), model.llama_weights(), of.range, sizes.max_rows, max_logits),
      x(ops, int64_t(sizes.max_rows) * model.llama().width),
      offsets(ops, sizes.max_sequences + 1),
      positions(ops, sizes.max_rows),
      page_table(ops, int64_t(sizes.max_sequences) * pages_for(sizes.context)) {}

BatchRunner::BatchRunner(MiniGpt4& model, const Sizes& sizes, int max_logits)
    : width_(model.llama().width),
      max_rows_(sizes.max_rows),
      max_pages_(pages_for(sizes.context)),
      ids_(*model.llama_runs().front().ops, sizes.max_rows) {
  for (const LlamaRun& run : model.llama_runs()) runs_.emplace_back(model, run, sizes, max_logits);
}

bool BatchRunner::run(const std::vector<BatchPart>& parts, const Trace& trace, const Llama::Stop& stop) {
  const int T = upload(parts);
  embed(parts);
  if (trace) trace(runs_.front().ops, "embeds", runs_.front().x, T, width_);
  for (size_t i = 0; i < runs_.size(); ++i) {
    if (i > 0) carry(i, T);
    Run& run = runs_[i];
    if (!run.llama.forward(run.x, run.batch, run.cache, trace, stop)) return false;
  }
  append(parts);
  return true;
}

bool BatchRunner::is_step(const std::vector<BatchPart>& parts) {
  return std::all_of(parts.begin(), parts.end(),
                     [](const BatchPart& part) { return part.rows.size() == 1 && !part.rows.front().image; });
}

void BatchRunner::step(const std::vector<BatchPart>& parts, const std::function<void()>& after) {
  const int T = upload(parts);
  for (size_t i = 0; i < runs_.size(); ++i) {
    if (i > 0) carry(i, T);
    Run& run = runs_[i];
    // all that a launch depends on beside the number of rows is the same as long as this lives
    run.ops.replay(uint64_t(T), [&] {
      if (i == 0) run.llama.embed(run.x, ids_, T);
      run.llama.forward(run.x, run.batch, run.cache);
      if (i + 1 == runs_.size()) after();
    });
  }
  append(parts);
}

void BatchRunner::copy_page(int to, int from) {
  for (Run& run : runs_) {
    for (const KvPages& layer : run.cache.layers()) run.ops.kv_copy_page(layer, to, from);
  }
}

/// The rows that the run before has computed.
void BatchRunner::carry(size_t to, int T) {
  on_the_way_.resize(size_t(T) * size_t(width_));
  const size_t bytes = on_the_way_.size() * sizeof(float);
  runs_[to - 1].ops.download(on_the_way_.data(), runs_[to - 1].x, bytes);
  runs_[to].ops.upload(runs_[to].x, on_the_way_.data(), bytes);
}

/// What a pass reads beside its pictures, in each backend's memory. Returns the number of rows.
int BatchRunner::upload(const std::vector<BatchPart>& parts) {
  std::vector<int32_t> ids, offsets{0}, positions;
  for (const BatchPart& part : parts) {
    for (const Slot& slot : part.rows) {
      positions.push_back(part.sequence->length() + int32_t(positions.size()) - offsets.back());
      ids.push_back(slot.image ? 0 : slot.id);
    }
    offsets.push_back(int32_t(positions.size()));
  }
  ids_.set(ids);
  for (Run& run : runs_) {
    run.offsets.set(offsets);
    run.positions.set(positions);
    for (size_t b = 0; b < parts.size(); ++b) {
      const std::vector<int32_t>& pages = parts[b].sequence->pages();
      run.page_table.set(int64_t(b) * max_pages_, pages.data(), pages.size());
    }
    run.batch = {int(positions.size()), int(parts.size()), max_pages_, run.offsets, run.positions, run.page_table};
  }
  return int(positions.size());
}

/// The first run's x[T, C]: runs of tokens through the embedding table, pictures' rows from their own vectors.
void BatchRunner::embed(const std::vector<BatchPart>& parts) {
  const int64_t C = width_;
  Run& first = runs_.front();
  int64_t t = 0;
  for (const BatchPart& part : parts) {
    for (size_t i = 0; i < part.rows.size();) {
      size_t end = i + 1;
      if (part.rows[i].image) {
        const Image& image = part.rows[i].image;
        while (end < part.rows.size() && part.rows[end].image == image &&
               part.rows[end].row == part.rows[i].row + int32_t(end - i)) {
          ++end;
        }
        first.ops.upload(first.x + t * C, image->values.data() + part.rows[i].row * C,
                         (end - i) * size_t(C) * sizeof(float));
      } else {
        while (end < part.rows.size() && !part.rows[end].image) ++end;
        first.llama.embed(first.x + t * C, ids_ + t, int(end - i));
      }
      t += int64_t(end - i);
      i = end;
    }
  }
}

}  // namespace minigpt4
