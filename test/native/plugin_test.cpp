// The border to backends that are plug-ins: what is said where one is missing or wrong, and errors that cross it. A plug-in
// stays in its process, and the emulator reads its environment once: so each test has a process of its own.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <vector>

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "ops/ops.h"
#include "temporary_folder.h"

using namespace minigpt4;

namespace {

#ifdef MINIGPT4_SIMT_FOLDER
constexpr const char* kSimtFolder = MINIGPT4_SIMT_FOLDER;
#else
constexpr const char* kSimtFolder = nullptr;
#endif

/// Runs `body` in a process with these plug-ins and these words for the emulator; fails the test where it failed there.
void in_process(const char* plugins, const char* simt, const std::function<void()>& body) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) throw check::Skip{"the system makes no process"};
  if (child == 0) {
    setenv("MINIGPT4_PLUGINS", plugins, 1);
    setenv("MINIGPT4_SIMT", simt, 1);
    int failures = 0;
    try {
      body();
      failures = check::failures();
    } catch (const std::exception& error) {
      std::printf("  unexpected: %s\n", error.what());
      failures = 1;
    }
    std::fflush(nullptr);
    _exit(failures == 0 ? 0 : 1);
  }
  int status = 0;
  CHECK_EQUAL(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status));
  CHECK_EQUAL(WEXITSTATUS(status), 0);
}

void with_simt(const char* words, const std::function<void()>& body) {
  if (!kSimtFolder) throw check::Skip{"this build has no emulated device"};
  in_process(kSimtFolder, words, body);
}

std::unique_ptr<Ops> backend(const std::string& device) {
  DeviceOptions options;
  options.device = device;
  return make_ops(options);
}

/// An exception that the plug-in knows nothing about.
struct Own : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace

TEST("plug-in: the backend it makes computes, and says what it is") {
  with_simt("", [] {
    const std::unique_ptr<Ops> ops = backend("simt");
    CHECK_EQUAL(ops->describe().substr(0, 7), "simt:0 ");
    std::vector<float> values(100, 2), found(100, 0);
    auto* x = static_cast<float*>(ops->allocate(400, "test"));
    ops->upload(x, values.data(), 400);
    ops->silu_mul(x, x, x, 100);
    ops->download(found.data(), x, 400);
    // silu(2) · 2; the exponential and the quotient round
    for (float each : found) CHECK_NEAR(each, 4 / (1 + std::exp(-2.0)), 1e-5);
    CHECK(!ops->holdings().empty());
    ops->release(x);
  });
}

TEST("plug-in: its errors are this side's, thousands of them") {
  with_simt("", [] {
    const std::unique_ptr<Ops> ops = backend("simt:0");
    for (int i = 0; i < 3000; ++i) {
      try {
        ops->allocate(size_t(1) << 50, "too much");
        CHECK(false);
      } catch (const Error& error) {
        CHECK_EQUAL(error.code(), code::out_of_memory);  // the very constant
        CHECK(std::string(error.what()).find("too much needs 1125899906842624 bytes") != std::string::npos);
      }
      CHECK_EQUAL(std::uncaught_exceptions(), 0);
      CHECK(std::current_exception() == nullptr);
    }
    const float value = 0;
    CHECK_ERROR(code::unsupported, "type number 77", ops->matrix({Type(77), 1, 32, &value}, "w"));
    CHECK_ERROR(code::no_backend, "device number 9", backend("simt:9"));
  });
}

TEST("plug-in: what a replay's body throws comes out as it was, and the backend goes on") {
  with_simt("", [] {
    const std::unique_ptr<Ops> ops = backend("simt");
    auto* x = static_cast<float*>(ops->allocate(400, "test"));
    ops->fill(x, 1, 100);
    for (int round = 0; round < 300; ++round) {
      const auto key = uint64_t(round);
      for (int call = 0; call < 2; ++call) {  // as it first runs, and as it is recorded
        try {
          ops->replay(key, [&] {
            ops->gelu(x, x, 100);
            throw Own("mine");
          });
          CHECK(false);
        } catch (const Own& error) {
          CHECK_EQUAL(std::string(error.what()), "mine");
        }
        CHECK_ERROR(code::aborted, "ours", ops->replay(key, [] { fail(code::aborted, "ours"); }));
        // an error of the plug-in's within the body, and one that the body deals with itself
        CHECK_ERROR(code::no_backend, "device number 9", ops->replay(key, [&] { backend("simt:9"); }));
        ops->replay(key, [&] {
          CHECK_ERROR(code::no_backend, "device number 9", backend("simt:9"));
          ops->gelu(x, x, 100);
        });
        CHECK_EQUAL(std::uncaught_exceptions(), 0);
      }
    }
    ops->release(x);
  });
}

TEST("plug-in: without a driver, a device or that device, the message says so") {
  with_simt("driver=none", [] { CHECK_ERROR(code::no_backend, "no NVIDIA driver", backend("simt")); });
  with_simt("driver=old", [] { CHECK_ERROR(code::no_backend, "580 or newer", backend("simt")); });
  with_simt("devices=0", [] { CHECK_ERROR(code::no_backend, "no CUDA device", backend("simt")); });
  with_simt("devices=2", [] {
    CHECK_EQUAL(backend("simt:1")->describe().substr(0, 7), "simt:1 ");
    CHECK_ERROR(code::no_backend, "2 CUDA devices, numbers 0 to 1", backend("simt:2"));
  });
}

TEST("plug-in: a name that is none, and files that are none") {
  const check::TemporaryFolder folder;
  const std::string nowhere = folder.path("nothing here");
  for (const char* name : {"simt:x", "simtt", "cuda:", "cuda:-1", "cuda0", "gpu", ""}) {
    in_process(nowhere.c_str(), "",
               [&] { CHECK_ERROR(code::no_backend, "found \"" + std::string(name), backend(name)); });
  }
  folder.file("libminigpt4_simt.so", "not a library");
  in_process(folder.path("").c_str(), "",
             [] { CHECK_ERROR(code::no_backend, "could not be loaded", backend("simt")); });
  // a library, but no plug-in
  Dl_info about{};
  double (*some)(double) = std::cos;
  CHECK(dladdr(reinterpret_cast<void*>(some), &about) != 0);
  std::filesystem::copy_file(about.dli_fname, folder.path("libminigpt4_simt.so"),
                             std::filesystem::copy_options::overwrite_existing);
  in_process(folder.path("").c_str(), "",
             [] { CHECK_ERROR(code::no_backend, "is no plug-in of this program", backend("simt")); });
}

TEST("plug-in: one that is cut off is refused, and auto takes the CPU") {
  if (!kSimtFolder) throw check::Skip{"this build has no emulated device"};
  const check::TemporaryFolder folder;
  const std::filesystem::path whole = std::filesystem::path(kSimtFolder) / "libminigpt4_simt.so";
  const std::filesystem::path cut = folder.path("libminigpt4_cuda.so");
  std::filesystem::copy_file(whole, cut);
  std::filesystem::resize_file(cut, std::filesystem::file_size(whole) / 3);
  in_process(folder.path("").c_str(), "", [] {
    CHECK_ERROR(code::no_backend, "cut off", backend("cuda"));
    CHECK_EQUAL(backend("auto")->describe().substr(0, 4), "cpu ");
  });
}

TEST("plug-in: auto takes the CPU where others hold all memory of the card") {
  if (!kSimtFolder) throw check::Skip{"this build has no emulated device"};
  const check::TemporaryFolder folder;
  std::filesystem::copy_file(std::filesystem::path(kSimtFolder) / "libminigpt4_simt.so",
                             folder.path("libminigpt4_cuda.so"));
  in_process(folder.path("").c_str(), "memory=1", [] {
    CHECK_ERROR(code::out_of_memory, "device check", backend("cuda"));
    CHECK_EQUAL(backend("auto")->describe().substr(0, 4), "cpu ");
  });
}

TEST("plug-in: one that was built from other headers is refused") {
  if (!kSimtFolder) throw check::Skip{"this build has no emulated device"};
  const check::TemporaryFolder folder;
  std::ifstream file(std::string(kSimtFolder) + "/libminigpt4_simt.so", std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const size_t at = bytes.find(", libstdc++");
  CHECK(at != std::string::npos && at > 16);
  bytes[at - 1] = bytes[at - 1] == '0' ? '1' : '0';  // the last digit of the hash
  folder.file("libminigpt4_simt.so", bytes);
  in_process(folder.path("").c_str(), "",
             [] { CHECK_ERROR(code::no_backend, "was built apart from this binary", backend("simt")); });
}

TEST("plug-in: device cuda is there or says what is missing, and auto takes the best that is") {
#ifdef MINIGPT4_CUDA_FOLDER
  in_process(MINIGPT4_CUDA_FOLDER, "", [] {
    std::string found;
    try {
      found = backend("cuda")->describe();
      CHECK_EQUAL(found.substr(0, 7), "cuda:0 ");
    } catch (const Error& error) {
      CHECK_EQUAL(error.code(), code::no_backend);
      const std::string why = error.what();
      CHECK(why.find("driver") != std::string::npos || why.find("compute capability") != std::string::npos);
      found = backend("cpu")->describe();
    }
    CHECK_EQUAL(backend("auto")->describe(), found);
  });
#else
  const check::TemporaryFolder folder;
  in_process(folder.path("").c_str(), "", [] {
    CHECK_ERROR(code::no_backend, "needs the cuda plug-in", backend("cuda"));
    CHECK_ERROR(code::no_backend, "nvcc", backend("cuda:1"));
    CHECK_EQUAL(backend("auto")->describe(), backend("cpu")->describe());
  });
#endif
}
