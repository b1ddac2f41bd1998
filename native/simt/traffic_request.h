// What one warp's request costs: 32-byte sectors of global memory, wavefronts of shared memory.
#pragma once

#include <cstdint>

namespace minigpt4::simt {

/// The addresses of one instruction's lanes. For ldmatrix, sixteen-byte rows.
struct WarpRequest {
  uint32_t lanes = 0;  // who took part
  uint32_t bytes = 0;  // per lane, the widest seen
  uint64_t address[32];
};

struct GlobalCost {
  uint32_t sectors = 0;       // distinct aligned 32-byte pieces: what the memory system moves
  uint32_t useful_bytes = 0;  // distinct bytes asked for
};
struct SharedCost {
  uint32_t wavefronts = 0;  // cycles of the 32 banks
  uint32_t ideal = 0;       // as many as there are phases with a lane in them
};

GlobalCost global_cost(const WarpRequest& request);

/// A phase serves 128 bytes: 32 lanes of up to 4 bytes, 16 of 8, 8 of 16. Within one, lanes that want different words of
/// the same bank wait for each other; lanes that want the same word do not.
SharedCost shared_cost(const WarpRequest& request);

}  // namespace minigpt4::simt
