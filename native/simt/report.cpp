#include "simt/report.h"

#include <mutex>
#include <sstream>

#include "simt/execution.h"
#include "simt/launch_findings.h"

namespace minigpt4::simt {

namespace {

std::mutex lock;
std::vector<Finding> found;
Options chosen;
thread_local LaunchFindings* of_launch = nullptr;
thread_local Context* worked_for = nullptr;
thread_local unsigned depth = 0;

}  // namespace

OwnCode::OwnCode() {
  if (depth++ > 0) return;
  worked_for = current;
  current = nullptr;
}
OwnCode::~OwnCode() {
  if (--depth > 0) return;
  current = worked_for;
  worked_for = nullptr;
}
const Context* OwnCode::thread() { return depth > 0 ? worked_for : current; }
void OwnCode::end() {
  depth = 0;
  worked_for = nullptr;
}

LaunchFindings::LaunchFindings() : outer_(of_launch) { of_launch = this; }
LaunchFindings::~LaunchFindings() { of_launch = outer_; }

const char* name(FindingKind kind) {
  static const char* const names[] = {"barrier",   "collective", "shuffle",       "deadlock", "shared_memory",
                                      "copy",      "misaligned", "out_of_bounds", "race",     "uninitialised",
                                      "in_flight", "exception",  "overlap",       "host"};
  return names[int(kind)];
}

void report(FindingKind kind, const char* file, int line, const std::string& words) {
  const OwnCode own;
  const Context* thread = OwnCode::thread();
  Finding finding{.kind = kind, .text = {}, .kernel = {}, .file = file ? file : "", .line = line};
  std::ostringstream text;
  if (thread && thread->block) {
    const BlockInfo& block = *thread->block;
    finding.kernel = block.launch->kernel;
    finding.block = block.number;
    finding.thread = thread->thread;
    text << "kernel " << finding.kernel << ", block " << block.number << ", thread " << thread->thread << " (warp "
         << thread->warp << ", lane " << thread->lane << ")";
    if (file) text << ", at " << file << ":" << line;
    text << ": ";
  } else if (file) {
    text << file << ":" << line << ": ";
  }
  text << words;
  finding.text = text.str();
  add_finding(std::move(finding));
}

void add_finding(Finding finding) {
  const std::lock_guard held(lock);
  if (of_launch) ++of_launch->count;
  for (Finding& other : found) {
    if (other.kind == finding.kind && other.line == finding.line && other.file == finding.file &&
        other.kernel == finding.kernel) {
      other.count += finding.count;
      return;
    }
  }
  if (of_launch) of_launch->texts.push_back(std::string(name(finding.kind)) + ": " + finding.text);
  found.push_back(std::move(finding));
}

std::vector<Finding> take_findings() {
  const std::lock_guard held(lock);
  std::vector<Finding> taken;
  taken.swap(found);
  return taken;
}

uint64_t findings_count() {
  const std::lock_guard held(lock);
  uint64_t count = 0;
  for (const Finding& finding : found) count += finding.count;
  return count;
}

void set_options(const Options& options) {
  const std::lock_guard held(lock);
  chosen = options;
}

Options options() {
  const std::lock_guard held(lock);
  return chosen;
}

}  // namespace minigpt4::simt
