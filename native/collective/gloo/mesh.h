// Connections of one process with every other, over Gloo's TCP transport, and sums over them.
#pragma once

#include <gloo/context.h>
#include <gloo/transport/device.h>
#include <gloo/transport/unbound_buffer.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace minigpt4::collective {

/// What ends a call; `rank`: the process at fault, -1: not known.
class MeshError : public std::runtime_error {
 public:
  MeshError(int peer, const std::string& message) : std::runtime_error(message), rank(peer) {}
  const int rank;
};

/// Calls come one after the other, but for abort(), which any thread may call. Nobody may sum before everybody is
/// connected: Gloo ends the process where a connection is reset that it has not accepted yet.
class Mesh : private gloo::Context {
 public:
  using Milliseconds = std::chrono::milliseconds;
  Mesh(int own_rank, int ranks, const std::string& host, Milliseconds connect_timeout, Milliseconds sum_timeout);
  ~Mesh() override;

  int ranks() const { return size; }
  /// What the others need for connect(): this process's address towards each rank, all of one length.
  const std::string& own_address() const { return own_address_; }
  void connect(const std::vector<std::string_view>& addresses);
  /// In place; T is float or double.
  template <class T>
  void sum(T* values, size_t count);
  void abort();

 private:
  class Exchange;
  using Buffer = gloo::transport::UnboundBuffer;

  const Milliseconds sum_timeout_;
  std::string own_address_;
  uint64_t slot_number_ = 0;  // counts exchanges: the same on all ranks
  uint64_t sums_ = 0;
  std::atomic<bool> aborted_{false};

  /// Runs body; what Gloo throws in it is the fault of the connection with `peer`, or of abort().
  template <class Body>
  void with_peer(int peer, Body&& body);
  void check_aborted() const;
  void compare_sums(size_t count, size_t element_bytes);
};

}  // namespace minigpt4::collective
