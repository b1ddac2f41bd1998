#include "collective/gloo/mesh.h"

#include <arpa/inet.h>
#include <gloo/transport/address.h>
#include <gloo/transport/context.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>

namespace minigpt4::collective {

namespace {

template <class... Parts>
std::string text_of(Parts&&... parts) {
  std::ostringstream text;
  (text << ... << std::forward<Parts>(parts));
  return text.str();
}

/// First element of a rank's share of `count` elements.
size_t share_begin(size_t count, int rank, int ranks) {
  const size_t whole = count / size_t(ranks), rest = count % size_t(ranks);
  return whole * size_t(rank) + std::min(rest, size_t(rank));
}

/// Throws unless a socket can listen at this address: Gloo itself crashes on one that it cannot use.
void check_host(const std::string& host) {
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  v4.sin_family = AF_INET;
  v6.sin6_family = AF_INET6;
  const bool is_v4 = inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1;
  if (!is_v4 && inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) != 1) {
    throw MeshError(-1, text_of("expected the numeric address of an interface of this machine, found \"", host, "\""));
  }
  const int descriptor = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
  const auto* address = is_v4 ? reinterpret_cast<const sockaddr*>(&v4) : reinterpret_cast<const sockaddr*>(&v6);
  const bool good = descriptor >= 0 && bind(descriptor, address, is_v4 ? sizeof v4 : sizeof v6) == 0;
  const int found = errno;
  if (descriptor >= 0) close(descriptor);
  if (!good) throw MeshError(-1, text_of("no socket can listen at ", host, ": ", std::strerror(found)));
}

}  // namespace

template <class Body>
void Mesh::with_peer(int peer, Body&& body) {
  check_aborted();
  try {
    body();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    check_aborted();
    throw MeshError(peer, text_of("the connection with rank ", peer, " failed: ", error.what()));
  }
}

/// Sends and receives that are under way together; none outlives it. A buffer a direction and peer, so that an error
/// says whose it is.
class Mesh::Exchange {
 public:
  explicit Exchange(Mesh& mesh) : mesh_(mesh), slot_(mesh.slot_number_++) {}

  void receive(int peer, void* bytes, size_t size) { add(peer, bytes, size, false); }
  /// The bytes are only read.
  void send(int peer, const void* bytes, size_t size) { add(peer, const_cast<void*>(bytes), size, true); }

  void finish() {
    for (const Transfer& transfer : transfers_) {
      mesh_.with_peer(transfer.peer, [&] {
        Buffer& buffer = *transfer.buffer;
        const bool done = transfer.sends ? buffer.waitSend(mesh_.sum_timeout_) : buffer.waitRecv(mesh_.sum_timeout_);
        if (!done) throw std::runtime_error("the wait was ended");
      });
    }
  }

 private:
  struct Transfer {
    int peer;
    bool sends;
    std::unique_ptr<Buffer> buffer;
  };
  Mesh& mesh_;
  const uint64_t slot_;
  std::vector<Transfer> transfers_;

  void add(int peer, void* bytes, size_t size, bool sends) {
    if (size == 0) return;
    mesh_.with_peer(peer, [&] {
      std::unique_ptr<Buffer> buffer = mesh_.createUnboundBuffer(bytes, size);
      if (sends) {
        buffer->send(peer, slot_);
      } else {
        buffer->recv(peer, slot_);
      }
      transfers_.push_back({peer, sends, std::move(buffer)});
    });
  }
};

Mesh::Mesh(int own_rank, int ranks, const std::string& host, Milliseconds connect_timeout, Milliseconds sum_timeout)
    : gloo::Context(own_rank, ranks), sum_timeout_(sum_timeout) {
  check_host(host);
  device_ = gloo::transport::tcp::CreateDevice(gloo::transport::tcp::attr(host.c_str()));
  transportContext_ = device_->createContext(rank, size);
  // a pair waits five times this for its connection
  transportContext_->setTimeout(std::max(Milliseconds(1), connect_timeout / 5));
  std::vector<std::vector<char>> places(static_cast<size_t>(size));
  size_t length = 0;
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    places[size_t(peer)] = transportContext_->createPair(peer)->address().bytes();
    length = std::max(length, places[size_t(peer)].size());
  }
  for (std::vector<char>& place : places) {
    place.resize(length);  // the own place has no address
    own_address_.append(place.begin(), place.end());
  }
}

Mesh::~Mesh() {
  // Pairs close themselves softly with the context: what was sent still arrives.
  transportContext_.reset();
}

void Mesh::connect(const std::vector<std::string_view>& addresses) {
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    const std::string_view theirs = addresses[size_t(peer)];
    if (theirs.size() != own_address_.size()) {
      throw MeshError(peer, text_of("rank ", peer, " has an address of ", theirs.size(), " bytes, expected ",
                                    own_address_.size(), ": another version of Gloo or of the address family"));
    }
    const size_t length = theirs.size() / size_t(size);
    const std::string_view towards_us = theirs.substr(size_t(rank) * length, length);
    with_peer(peer, [&] { getPair(peer)->connect(std::vector<char>(towards_us.begin(), towards_us.end())); });
  }
  check_aborted();
}

void Mesh::compare_sums(size_t count, size_t element_bytes) {
  struct Plan {
    uint64_t number, count, element_bytes;
  };
  const Plan own{sums_++, count, element_bytes};
  std::vector<Plan> plans(size_t(size), own);
  {
    Exchange exchange(*this);
    for (int peer = 0; peer < size; ++peer) {
      if (peer == rank) continue;
      exchange.receive(peer, &plans[size_t(peer)], sizeof(Plan));
      exchange.send(peer, &own, sizeof(Plan));
    }
    exchange.finish();
  }
  for (int peer = 0; peer < size; ++peer) {
    const Plan& theirs = plans[size_t(peer)];
    if (theirs.number == own.number && theirs.count == own.count && theirs.element_bytes == own.element_bytes) continue;
    throw MeshError(
        peer, text_of("rank ", peer, " sums ", theirs.count, " numbers of ", theirs.element_bytes, " bytes (its sum ",
                      theirs.number + 1, ") where rank ", rank, " sums ", own.count, " of ", own.element_bytes,
                      " bytes (its sum ", own.number + 1, "): all processes must run the same steps"));
  }
}

// Every rank adds up one share of the elements and gives it to the others: as many bytes as a ring moves, two steps
// instead of 2 (size - 1), and the order of the sums is that of the ranks.
template <class T>
void Mesh::sum(T* values, size_t count) {
  check_aborted();
  try {
    compare_sums(count, sizeof(T));
    const size_t begin = share_begin(count, rank, size), own = share_begin(count, rank + 1, size) - begin;
    {
      std::vector<T> theirs(own * size_t(size));  // the own share as each rank has it; this rank's place is not used
      Exchange exchange(*this);
      for (int peer = 0; peer < size; ++peer) {
        if (peer == rank) continue;
        const size_t first = share_begin(count, peer, size);
        exchange.receive(peer, theirs.data() + own * size_t(peer), own * sizeof(T));
        exchange.send(peer, values + first, (share_begin(count, peer + 1, size) - first) * sizeof(T));
      }
      exchange.finish();
      for (size_t i = 0; i < own; ++i) {
        double total = 0;
        for (int peer = 0; peer < size; ++peer)
          total += peer == rank ? values[begin + i] : theirs[own * size_t(peer) + i];
        values[begin + i] = T(total);
      }
    }
    Exchange exchange(*this);
    for (int peer = 0; peer < size; ++peer) {
      if (peer == rank) continue;
      const size_t first = share_begin(count, peer, size);
      exchange.receive(peer, values + first, (share_begin(count, peer + 1, size) - first) * sizeof(T));
      exchange.send(peer, values + begin, own * sizeof(T));
    }
    exchange.finish();
  } catch (...) {
    abort();  // a step of which half the messages have gone: the others shall not wait for the rest
    throw;
  }
}

template void Mesh::sum(float*, size_t);
template void Mesh::sum(double*, size_t);

// A wait that runs out of time is Gloo's way to end all connections of a context and whatever waits for them, from any
// thread.
void Mesh::abort() {
  if (aborted_.exchange(true)) return;
  try {
    char byte;
    createUnboundBuffer(&byte, 1)->waitRecv(Milliseconds(1));
  } catch (const std::exception&) {
    // that it ran out of time
  }
}

void Mesh::check_aborted() const {
  if (aborted_) throw MeshError(-1, "the group was ended");
}

}  // namespace minigpt4::collective
