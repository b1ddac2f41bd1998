// Five ops at modest shapes, once each, for what counts memory requests: Nsight Compute on a GPU (this program says nothing
// then), or the emulator's memory report, printed as Nsight Compute prints its raw page, so that counters.mjs reads both.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "bench.h"
#include "core/dtype.h"
#include "ops/cuda/devices.h"
#include "random_weights.h"
#ifdef MINIGPT4_SIMT_HOOKS
#include "simt/traffic.h"
#endif

namespace minigpt4::bench {
namespace {

void product(Ops& ops, Type type, int T, int64_t cols, int64_t rows) {
  const auto w = random_matrix(ops, type, rows, cols);
  const auto x = random_floats(ops, T * cols);
  const Buffer<float> y(ops, T * rows, "bench");
  ops.matmul(y, *w, x, nullptr, T, Accumulate::no);
  float first = 0;
  ops.download(&first, y, sizeof first);
}

void dense_attention(Ops& ops) {
  const int P = 257, H = 2, D = 88, C = H * D;
  const auto qkv = random_floats(ops, int64_t(P) * 3 * C);
  const Buffer<float> y(ops, int64_t(P) * C, "bench");
  Ops::Attention a;
  a.y = y;
  a.q = qkv;
  a.k = qkv + C;
  a.v = qkv + 2 * C;
  a.q_stride = a.k_stride = a.v_stride = 3 * C;
  a.B = 1;
  a.Tq = a.Tk = P;
  a.H = H;
  a.D = D;
  a.scale = 0.1f;
  ops.attend(a);
  float first = 0;
  ops.download(&first, y, sizeof first);
}

void paged_attention(Ops& ops) {
  const int H = 4, D = 128, length = 512, pages = pages_for(length);
  std::vector<int32_t> table;
  for (int i = 0; i < pages; ++i) table.push_back(i);
  const std::vector<uint16_t> half(size_t(pages) * H * D * kPagePositions, float_to_half(0.1f));
  const Buffer<uint16_t> k(ops, int64_t(half.size()), "bench"), v(ops, int64_t(half.size()), "bench");
  ops.upload(k, half.data(), half.size() * sizeof(uint16_t));
  ops.upload(v, half.data(), half.size() * sizeof(uint16_t));
  const auto q = random_floats(ops, H * D);
  const Buffer<float> y(ops, H * D, "bench");
  const auto o = device_ints(ops, {0, 1}), p = device_ints(ops, {length - 1}), t = device_ints(ops, table);
  ops.attend_paged(y, q, {k.get(), v.get(), Type::F16, pages, H, D}, {1, 1, pages, o, p, t}, H, 0.1f);
  float first = 0;
  ops.download(&first, y, sizeof first);
}

void all() {
  const std::unique_ptr<Ops> ops = cuda::make_device_ops(0);
  product(*ops, Type::Q4_0, 1, 1024, 1024);
  product(*ops, Type::Q4_0, 128, 1024, 256);
  product(*ops, Type::F16, 257, 1408, 256);
  dense_attention(*ops);
  paged_attention(*ops);
}

#ifdef MINIGPT4_SIMT_HOOKS
void print(const std::vector<simt::KernelTraffic>& report) {
  std::printf(
      "\"ID\",\"Kernel Name\",\"l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum\","
      "\"l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum\",\"l1tex__t_requests_pipe_lsu_mem_global_op_st.sum\","
      "\"l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum\",\"l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum\","
      "\"l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum\","
      "\"l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum\","
      "\"l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum\"\n"
      "\"\",\"\",\"\",\"sector\",\"\",\"sector\",\"\",\"\",\"\",\"\"\n");
  int id = 0;
  for (const simt::KernelTraffic& kernel : report) {
    std::printf("\"%d\",\"%s\"", id++, kernel.kernel.c_str());
    for (const simt::TrafficCount* count : {&kernel.global_reads, &kernel.global_writes}) {
      std::printf(",\"%llu\",\"%llu\"", static_cast<unsigned long long>(count->requests),
                  static_cast<unsigned long long>(count->sectors));
    }
    for (const simt::TrafficCount* count : {&kernel.shared_reads, &kernel.shared_writes}) {
      std::printf(",\"%llu\",\"%llu\"", static_cast<unsigned long long>(count->wavefronts),
                  static_cast<unsigned long long>(count->wavefronts - count->ideal));
    }
    std::printf("\n");
  }
}
#endif

}  // namespace
}  // namespace minigpt4::bench

int main() {
  return minigpt4::bench::run([] {
#ifdef MINIGPT4_SIMT_HOOKS
    minigpt4::simt::begin_traffic();
    minigpt4::bench::all();
    minigpt4::bench::print(minigpt4::simt::take_traffic());
#else
    minigpt4::bench::all();
#endif
  });
}
