// attend_paged: which kernels a batch's attention takes. Grids and scratch are sized by what the host knows (rows, sequences,
// pages of the longest context there may be), so a recorded launch serves every step.
#include <algorithm>
#include <numbers>

#include "core/error.h"
#include "ops/cuda/attention_pages.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/packs.h"

namespace minigpt4::cuda {

namespace {

/// What pieces' results may take of the device's memory. More would let longer prompts be shared among blocks along their
/// context too, but those have blocks enough.
constexpr size_t kPiecesBudget = size_t(32) << 20;
/// Blocks of few's that a multiprocessor is given at least, where there is work for them: it has three at a time, and of the
/// last ones some are idle. With many sequences blocks take several pieces, since there are as many as the longest context may
/// have, and a block that finds its piece empty costs time too.
constexpr int64_t kFewBlocks = 48;
constexpr int kWidestHead = 256;  // shared memory of the smallest devices holds no wider ones

int most_tiles(int vectors_each_row, int rows, int sequences, int size) {
  const int64_t vectors = int64_t(rows) * vectors_each_row;
  // a sequence has one tile that is not full, and every row's vectors fill so many by themselves
  return int(std::min(vectors / size + sequences, int64_t(rows) * ((vectors_each_row + size - 1) / size)));
}

}  // namespace

void CudaOps::attend_paged(float* y, const float* q, const KvPages& cache, const RaggedBatch& batch, int H,
                           float scale) {
  if (batch.rows == 0 || batch.sequences == 0) return;
  const int D = cache.head_dim;
  if (D > kWidestHead) {
    fail(code::unsupported, "attention heads on a CUDA device are at most ", kWidestHead, " wide, found ", D);
  }
  PagedAttention a;
  a.y = y, a.q = q, a.cache = cache, a.batch = batch, a.H = H, a.group = H / cache.kv_heads;
  a.factor = float(double(scale) * std::numbers::log2e);
  a.whole = D % 4 == 0 && aligned16({q});
  const unsigned heads = unsigned(cache.kv_heads * slices_of(D));
  if (cache.type != Type::F16) {
    const WidePagedLaunch launch = attend_pages_f32(D);
    const int tiles = most_tiles(a.group, batch.rows, batch.sequences, launch.vectors);
    run_overlapping("attend_paged", launch.kernel, dim3(unsigned(tiles), heads), dim3(128), launch.shared, a);
    return;
  }

  a.pieces = (batch.max_pages * kPagePositions + kPiece - 1) / kPiece;
  int rows_each = std::max(1, kManyVectors / a.group);  // of a sequence that is few's
  if (a.pieces > 1) {
    const size_t results = size_t(H) * size_t(a.pieces);  // of a row
    const size_t row_bytes = results * (size_t(D) * sizeof(float) + sizeof(float2));
    const int most_rows = int(std::min<size_t>(kPiecesBudget / row_bytes, size_t(batch.rows)));
    if (most_rows < batch.rows) rows_each = std::clamp(most_rows / batch.sequences, 1, rows_each);
    int64_t slots = batch.rows;
    if (int64_t(rows_each) * batch.sequences < slots) {
      slots = int64_t(rows_each) * batch.sequences;
      a.slots_each = rows_each;
    }
    const size_t scale_bytes = size_t(slots) * results * sizeof(float2);
    a.scales = static_cast<float2*>(scratch(Scratch::partial_sums, size_t(slots) * row_bytes + 16));
    a.sums = reinterpret_cast<float*>(reinterpret_cast<uint8_t*>(a.scales) + (scale_bytes + 15) / 16 * 16);
  }
  a.few = rows_each * a.group;

  const PagedLaunch few = attend_few(D), many = attend_many(D);
  const int few_tiles = std::min(most_tiles(a.group, batch.rows, batch.sequences, kQueryRows),
                                 batch.sequences * ((a.few + kQueryRows - 1) / kQueryRows));
  const int64_t in_a_row = (kFewBlocks * multiprocessors_ - 1) / (int64_t(few_tiles) * heads) + 1;
  const unsigned at_once = unsigned(std::min<int64_t>(a.pieces, in_a_row));
  run_overlapping("attend_paged", few.kernel, dim3(unsigned(few_tiles), heads, at_once), dim3(128), few.shared, a);
  if (int64_t(batch.rows) * a.group > a.few) {
    const int tiles = most_tiles(a.group, batch.rows, batch.sequences, kManyVectors);
    run_overlapping("attend_paged", many.kernel, dim3(unsigned(tiles), heads), dim3(128), many.shared, a);
  }
  if (a.pieces > 1) {
    run_overlapping("attend_paged", attend_join(), dim3(unsigned(batch.rows), unsigned((H + 3) / 4)), dim3(128), 0, a);
  }
}

}  // namespace minigpt4::cuda
