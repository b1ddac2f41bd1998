// Calls into a plug-in whose exceptions stay there (plugin.h).
#pragma once

#include <optional>
#include <type_traits>
#include <utility>

#include "ops/plugin.h"

namespace minigpt4::plugin {

/// Throws the failure as this side's Error.
[[noreturn]] void raise(const Failure& failure);

/// body(), which calls into the plug-in, and its result. What the plug-in throws comes out as this side's Error; the body
/// itself must throw nothing of this side's.
template <class Body>
std::invoke_result_t<Body&> guarded(const Table& table, Body&& body) {
  using Result = std::invoke_result_t<Body&>;
  const auto run = [&](auto&& call) {
    using Call = std::remove_reference_t<decltype(call)>;
    Failure failure;
    if (!table.guard([](void* context) { (*static_cast<Call*>(context))(); }, &call, &failure)) raise(failure);
  };
  if constexpr (std::is_void_v<Result>) {
    run(body);
  } else {
    std::optional<Result> result;
    run([&] { result.emplace(body()); });
    return *std::move(result);
  }
}

}  // namespace minigpt4::plugin
