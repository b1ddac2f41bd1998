#include "engine/batch.h"

#include <algorithm>

namespace minigpt4 {

BatchRunner::BatchRunner(MiniGpt4& model, Llama& llama, const KvCache& cache, int context, int max_sequences)
    : model_(model),
      llama_(llama),
      cache_(cache),
      max_pages_(pages_for(context)),
      x_(model.ops(), int64_t(llama.max_rows()) * model.llama().width),
      offsets_(model.ops(), max_sequences + 1),
      positions_(model.ops(), llama.max_rows()),
      page_table_(model.ops(), int64_t(max_sequences) * max_pages_) {}

bool BatchRunner::run(const std::vector<BatchPart>& parts, const Trace& trace, const Llama::Stop& stop) {
  host_offsets_.assign(1, 0);
  host_positions_.clear();
  host_page_table_.assign(parts.size() * size_t(max_pages_), 0);
  for (size_t b = 0; b < parts.size(); ++b) {
    Sequence& sequence = *parts[b].sequence;
    for (size_t i = 0; i < parts[b].rows.size(); ++i) host_positions_.push_back(sequence.length() + int32_t(i));
    host_offsets_.push_back(int32_t(host_positions_.size()));
    std::copy(sequence.pages().begin(), sequence.pages().end(),
              host_page_table_.begin() + std::ptrdiff_t(b * size_t(max_pages_)));
  }
  embed(parts);
  Ops& ops = model_.ops();
  ops.upload(offsets_, host_offsets_.data(), host_offsets_.size() * sizeof(int32_t));
  ops.upload(positions_, host_positions_.data(), host_positions_.size() * sizeof(int32_t));
  ops.upload(page_table_, host_page_table_.data(), host_page_table_.size() * sizeof(int32_t));
  RaggedBatch batch;
  batch.rows = int(host_positions_.size());
  batch.sequences = int(parts.size());
  batch.max_pages = max_pages_;
  batch.offsets = offsets_;
  batch.positions = positions_;
  batch.page_table = page_table_;
  if (trace) trace("embeds", x_, batch.rows, model_.llama().width);
  if (!llama_.forward(x_, batch, cache_, trace, stop)) return false;
  for (const BatchPart& part : parts) {
    for (const Slot& slot : part.rows) part.sequence->append(slot);
  }
  return true;
}

/// x_[T, C]: runs of tokens through the embedding table, pictures' rows from their own vectors.
void BatchRunner::embed(const std::vector<BatchPart>& parts) {
  const int64_t C = model_.llama().width;
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
        model_.ops().upload(x_ + t * C, image->values.data() + part.rows[i].row * C,
                            (end - i) * size_t(C) * sizeof(float));
      } else {
        host_ids_.assign(1, part.rows[i].id);
        for (; end < part.rows.size() && !part.rows[end].image; ++end) host_ids_.push_back(part.rows[end].id);
        llama_.embed(x_ + t * C, host_ids_.data(), int(host_ids_.size()));
      }
      t += int64_t(end - i);
      i = end;
    }
  }
}

}  // namespace minigpt4
