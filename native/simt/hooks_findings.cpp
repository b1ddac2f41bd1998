#include "simt/hooks_findings.h"

#include <map>
#include <tuple>
#include <vector>

#include "simt/hooks_sites.h"

namespace minigpt4::simt {
namespace {

struct Noted {
  Finding finding;
  uint32_t site, other_site;
  std::string words, rest;
};
using Key = std::tuple<FindingKind, uint32_t, uint32_t>;

// only touched during a launch, and launches exclude each other
std::map<Key, Noted> noted;

}  // namespace

bool noted_before(FindingKind kind, uint32_t site, uint32_t other_site) {
  const auto found = noted.find({kind, site, other_site});
  if (found == noted.end()) return false;
  ++found->second.finding.count;
  return true;
}

void note_finding(FindingKind kind, const Context& by, uint32_t site, const std::string& words, uint32_t other_site,
                  const std::string& rest) {
  if (noted_before(kind, site, other_site)) return;
  Noted note;
  note.finding.kind = kind;
  note.finding.kernel = by.block->launch->kernel;
  note.finding.block = by.block->number;
  note.finding.thread = by.thread;
  note.site = site;
  note.other_site = other_site;
  note.words = words;
  note.rest = rest;
  noted.emplace(Key{kind, site, other_site}, std::move(note));
}

void tell_findings() {
  if (noted.empty()) return;
  std::vector<uint32_t> sites;
  for (const auto& [key, note] : noted) {
    sites.push_back(note.site);
    if (note.other_site) sites.push_back(note.other_site);
  }
  source_lines(sites);  // all in one go
  for (auto& [key, note] : noted) {
    const auto place = [](uint32_t site) {
      const SourceLine line = source_lines({site})[0];
      return line.file + ":" + std::to_string(line.line);
    };
    const SourceLine line = source_lines({note.site})[0];
    Finding& finding = note.finding;
    finding.file = line.file;
    finding.line = line.line;
    finding.text = "kernel " + finding.kernel + ", block " + std::to_string(finding.block) + ", thread " +
                   std::to_string(finding.thread) + ", at " + place(note.site) + ": " + note.words;
    if (note.other_site) finding.text += place(note.other_site);
    finding.text += note.rest;
    add_finding(std::move(finding));
  }
  noted.clear();
}

}  // namespace minigpt4::simt
