// Groups whose processes are threads here: sums with the promised bits, ends of every kind, and a folder without the
// plug-in.
#include "collective/collective.h"

#include <barrier>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>

#include "check.h"
#include "core/rng.h"
#include "temporary_folder.h"

using namespace minigpt4;

namespace {

#ifdef MINIGPT4_PLUGIN_FOLDER
/// Runs body(rank, collective) on a thread for each rank of a group that is connected; what they threw, by rank.
template <class Body>
std::vector<std::string> run_group(int size, Body body) {
  static_cast<void>(std::signal(SIGPIPE, SIG_IGN));  // as Node does
  std::vector<std::unique_ptr<Collective>> group;
  std::vector<std::string> addresses;
  for (int rank = 0; rank < size; ++rank) {
    group.push_back(std::make_unique<Collective>(
        MINIGPT4_PLUGIN_FOLDER,
        Collective::Options{.rank = rank, .size = size, .host = "127.0.0.1", .sum_timeout_ms = 20'000}));
    addresses.push_back(group.back()->address());
  }
  std::vector<std::string> errors(static_cast<size_t>(size));
  std::barrier connected(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        group[size_t(rank)]->connect(addresses);
        connected.arrive_and_wait();
        body(rank, group[size_t(rank)]);
      } catch (const Error& error) {
        errors[size_t(rank)] = std::string(error.code()) + ": " + error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}
#endif

/// A value of rank's vector: of very different sizes, so that the order of a sum shows.
float value(int rank, size_t index) {
  Rng rng(uint64_t(rank) * 1'000'003 + index);
  return float((rng.uniform() - 0.5) * std::ldexp(1.0, int(rng.uniform() * 40)));
}

bool contains(const std::string& text, const char* words) { return text.find(words) != std::string::npos; }

}  // namespace

TEST("collective: a folder without the plug-in is an error that says what to install") {
  const check::TemporaryFolder folder;
  CHECK_ERROR(code::no_backend, "libgloo-dev",
              Collective(folder.path(""), {.rank = 0, .size = 2, .host = "127.0.0.1"}));
}

#ifdef MINIGPT4_PLUGIN_FOLDER

TEST("collective: sums are those in float64 in the order of ranks, on every rank") {
  for (const int size : {1, 2, 3, 5}) {
    const std::vector<std::string> errors = run_group(size, [&](int rank, const auto& collective) {
      for (const size_t count : {0, 1, 4, 9, 1001, 300'000}) {
        std::vector<float> values(count), expected(count);
        for (size_t i = 0; i < count; ++i) {
          double total = 0;
          for (int peer = 0; peer < size; ++peer) total += value(peer, i);
          expected[i] = float(total);
          values[i] = value(rank, i);
        }
        collective->sum(std::span(values));
        // memcmp of nothing may not be given null
        CHECK(count == 0 || std::memcmp(values.data(), expected.data(), count * sizeof(float)) == 0);
      }
      std::vector<double> numbers{double(rank), 1e300, -0.25};
      collective->sum(std::span(numbers));
      CHECK_EQUAL(numbers[0], size * (size - 1) / 2.0);
      CHECK_EQUAL(numbers[2], -0.25 * size);
    });
    for (const std::string& error : errors) CHECK_EQUAL(error, "");
  }
}

TEST("collective: lengths that differ are named on every rank") {
  const std::vector<std::string> errors = run_group(3, [](int rank, const auto& collective) {
    std::vector<float> values(rank == 1 ? 8 : 7);
    collective->sum(std::span(values));
  });
  for (const std::string& error : errors) CHECK(contains(error, "ERR_COLLECTIVE: "));
  CHECK(contains(errors[0] + errors[1] + errors[2], "must run the same steps"));
}

TEST("collective: abort ends a sum that waits, and all later ones") {
  const std::vector<std::string> errors = run_group(2, [](int rank, const auto& collective) {
    std::vector<float> values(1000);
    if (rank == 1) return std::this_thread::sleep_for(std::chrono::milliseconds(300));
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      collective->abort();
    });
    const auto begin = std::chrono::steady_clock::now();
    CHECK_ERROR(code::collective, "ended", collective->sum(std::span(values)));
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
    CHECK_ERROR(code::collective, "ended", collective->sum(std::span(values)));
    other.join();
  });
  CHECK_EQUAL(errors[0], "");
}

TEST("collective: abort at any moment of sums that run ends them on all ranks") {
  for (int round = 0; round < 20; ++round) {
    const std::vector<std::string> errors = run_group(3, [&](int rank, const auto& collective) {
      std::thread other;
      if (rank == 0) {
        other = std::thread([&] {
          std::this_thread::sleep_for(std::chrono::microseconds(500 * round));
          collective->abort();
        });
      }
      std::string found;
      std::vector<float> values(50'000, 1.0f);
      try {
        for (;;) {
          std::ranges::fill(values, 1.0f);
          collective->sum(std::span(values));
          if (values.front() != 3 || values.back() != 3) found = "wrong sums";
        }
      } catch (const Error& error) {
        if (found.empty()) found = error.code();
      }
      if (other.joinable()) other.join();
      CHECK_EQUAL(found, code::collective);
    });
    for (const std::string& error : errors) CHECK_EQUAL(error, "");
  }
}

TEST("collective: abort ends a connection that waits for the other side") {
  // Which side waits depends on port numbers; in eight groups of three it is nearly always rank 0 in some.
  for (int round = 0; round < 8; ++round) {
    std::vector<std::unique_ptr<Collective>> group;
    std::vector<std::string> addresses;
    for (int rank = 0; rank < 3; ++rank) {
      group.push_back(std::make_unique<Collective>(MINIGPT4_PLUGIN_FOLDER,
                                                   Collective::Options{.rank = rank, .size = 3, .host = "127.0.0.1"}));
      addresses.push_back(group.back()->address());
    }
    const auto begin = std::chrono::steady_clock::now();
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      group[0]->abort();
    });
    std::vector<double> values(1);
    CHECK_ERROR(code::collective, "ended", {
      group[0]->connect(addresses);
      group[0]->sum(std::span(values));
    });
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
    other.join();
  }
}

TEST("collective: a member that goes is named to the one that waits for it") {
  const std::vector<std::string> errors = run_group(2, [](int rank, auto& collective) {
    if (rank == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      collective.reset();
      return;
    }
    std::vector<double> values(3);
    collective->sum(std::span(values));
  });
  CHECK(contains(errors[0], "ERR_COLLECTIVE: the connection with rank 1 failed"));
}

TEST("collective: addresses that are none are an error") {
  Collective collective(MINIGPT4_PLUGIN_FOLDER, {.rank = 0, .size = 2, .host = "127.0.0.1"});
  CHECK_ERROR(code::argument, "of 2 processes, found 1", collective.connect({"x"}));
  CHECK_ERROR(code::collective, "rank 1 has an address of 1 bytes", collective.connect({collective.address(), "x"}));
  const auto open = [](const char* host) { Collective(MINIGPT4_PLUGIN_FOLDER, {.rank = 0, .size = 2, .host = host}); };
  CHECK_ERROR(code::collective, "found \"256.1.1.1\"", open("256.1.1.1"));
  // of the reserved block: no machine has it
  CHECK_ERROR(code::collective, "can listen at 240.0.0.1", open("240.0.0.1"));
}

#else

TEST("collective: sums of several processes") { throw check::Skip{"Gloo was not found when this was built"}; }

#endif
