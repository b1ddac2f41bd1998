// Memory and weights of the CPU backend, and how loops are cut into pieces.
#include "ops/cpu/cpu_ops.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "ops/cpu/levels.h"

namespace minigpt4::cpu {

CpuOps::CpuOps(const Level& level, int threads)
    : level_(level),
      arena_(std::make_shared<Arena>()),
      threads_(threads),
      runs_(threads_.threads()),
      workspace_(*arena_) {}

std::string CpuOps::describe() const {
  const int n = threads_.threads();
  return std::string("cpu ") + level_.name + ", " + std::to_string(n) + (n == 1 ? " thread" : " threads");
}

void* CpuOps::allocate(size_t bytes, const char* owner) { return arena_->take(bytes, owner); }
void CpuOps::release(void* memory) noexcept { arena_->give(memory); }

void CpuOps::upload(void* to, const void* from_host, size_t bytes) { copy(to, from_host, bytes); }
void CpuOps::download(void* to_host, const void* from, size_t bytes) { copy(to_host, from, bytes); }
void CpuOps::copy(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

std::vector<Holding> CpuOps::holdings() const { return arena_->holdings(); }

std::unique_ptr<Matrix> CpuOps::matrix(const MatrixView& view, const char* owner) {
  if (view.rows < 1 || view.cols < 1) {
    fail(code::shape, "a matrix of ", owner, " has ", view.rows, " rows of ", view.cols,
         " values; at least 1 is expected");
  }
  auto packed = std::make_unique<PackedMatrix>(arena_, view.type, view.rows, view.cols, owner);
  pack(*packed, view.data);
  return packed;
}

void CpuOps::refill(Matrix& w, const float* values) {
  if (w.type != Type::F32) {
    fail(code::argument, "new values are expected for a matrix of type F32, found one of type ", name(w.type));
  }
  auto& packed = static_cast<PackedMatrix&>(w);
  if (!packed.writable()) fail(code::argument, "new values are expected for a matrix of matrix(), found one in a file");
  pack(packed, values);
}

void CpuOps::pack(PackedMatrix& w, const void* rows) {
  // Pieces of about a megabyte: rows are read in order, by each thread and on the whole.
  const auto grain = std::max<int64_t>(1, (1 << 20) / int64_t(w.group_bytes()));
  threads_.parallel_for(w.groups(), grain, [&](int64_t begin, int64_t end, int) { w.pack(rows, begin, end); });
}

void CpuOps::rows_in_pieces(int64_t count, int64_t values, const Pieces& body) {
  constexpr int64_t worth_a_piece = 16384;  // values; some microseconds, well above what handing a piece out costs
  threads_.parallel_for(count, std::max<int64_t>(1, worth_a_piece / std::max<int64_t>(1, values)), body);
}

}  // namespace minigpt4::cpu

namespace minigpt4 {

std::unique_ptr<Ops> make_cpu_ops(const CpuOptions& options) {
  return std::make_unique<cpu::CpuOps>(cpu::choose_level(options.level), options.threads);
}

}  // namespace minigpt4
