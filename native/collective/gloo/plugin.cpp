// Gloo behind the plug-in's C interface. Exceptions end here.
#include "collective/plugin.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <string>

#include "collective/gloo/mesh.h"
#include "core/error.h"

namespace minigpt4::collective {

namespace {

template <size_t N>
void copy_text(char (&to)[N], const char* from) {
  const size_t size = std::min(N - 1, std::strlen(from));
  std::memcpy(to, from, size);
  to[size] = '\0';
}

void describe(Failure* failure, const char* code, int rank, const char* text) {
  copy_text(failure->code, code);
  copy_text(failure->text, text);
  failure->rank = rank;
}

/// Runs body; what it throws fills `failure`.
template <class Body>
bool guarded(Failure* failure, Body&& body) {
  try {
    body();
    return true;
  } catch (const MeshError& error) {
    describe(failure, code::collective, error.rank, error.what());
  } catch (const std::bad_alloc&) {
    describe(failure, code::out_of_memory, -1, "memory ran out while processes summed their numbers");
  } catch (const std::exception& error) {
    describe(failure, code::collective, -1, error.what());
  } catch (...) {
    describe(failure, code::internal, -1, "Gloo threw an exception of an unknown kind");
  }
  return false;
}

Mesh& mesh_of(void* group) { return *static_cast<Mesh*>(group); }

void* open(const Settings* settings, Failure* failure) {
  Mesh* mesh = nullptr;
  guarded(failure, [&] {
    mesh = new Mesh(settings->rank, settings->size, settings->host, Mesh::Milliseconds(settings->connect_timeout_ms),
                    Mesh::Milliseconds(settings->sum_timeout_ms));
  });
  return mesh;
}

void address(void* group, const char** bytes, size_t* size) {
  const std::string& own = mesh_of(group).own_address();
  *bytes = own.data();
  *size = own.size();
}

bool connect(void* group, const char* const* addresses, const size_t* sizes, Failure* failure) {
  return guarded(failure, [&] {
    Mesh& mesh = mesh_of(group);
    std::vector<std::string_view> all;
    for (int rank = 0; rank < mesh.ranks(); ++rank) all.emplace_back(addresses[rank], sizes[rank]);
    mesh.connect(all);
  });
}

template <class T>
bool sum(void* group, T* values, size_t count, Failure* failure) {
  return guarded(failure, [&] { mesh_of(group).sum(values, count); });
}

void abort_group(void* group) { mesh_of(group).abort(); }

void close_group(void* group) { delete static_cast<Mesh*>(group); }

constexpr Plugin kPlugin{kPluginVersion, open, address, connect, sum<float>, sum<double>, abort_group, close_group};

}  // namespace

}  // namespace minigpt4::collective

extern "C" __attribute__((visibility("default"))) const minigpt4::collective::Plugin* minigpt4_collective_plugin() {
  return &minigpt4::collective::kPlugin;
}
