// Memory with an owner's name on every piece, so that a model can say who holds what.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace minigpt4 {

struct Holding {
  std::string owner;  // "vit weights", "kv cache", "activations"
  size_t bytes;       // held now
  size_t peak;        // the most this owner held at once
  size_t pieces;
};

class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// 64-byte aligned, contents undefined; large pieces ask the system for huge pages. Never null (bytes 0 included).
  /// Error ERR_OUT_OF_MEMORY names the owner, what was asked and what is held already.
  void* take(size_t bytes, std::string_view owner);
  /// Gives back a piece of this arena; null, and what is not of this arena, is ignored.
  void give(void* piece) noexcept;
  std::vector<Holding> holdings() const;
  size_t held() const noexcept;
  size_t peak() const noexcept;
  /// take() beyond this many bytes in all is ERR_OUT_OF_MEMORY; 0 (the default) is no limit.
  void set_limit(size_t bytes) noexcept;

 private:
  struct Piece {
    size_t bytes;
    size_t owner;
  };
  mutable std::mutex mutex_;
  std::unordered_map<void*, Piece> pieces_;
  std::vector<Holding> owners_;
  size_t held_ = 0, peak_ = 0, limit_ = 0;
};

}  // namespace minigpt4
