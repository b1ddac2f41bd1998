// Writes native/text/unicode_ranges.h: the code points of \p{L}, \p{N} and White_Space as JavaScript's regular
// expressions know them. Run by hand when a newer Unicode is wanted: node --import tsx scripts/make-unicode-ranges.ts
import { writeFileSync } from 'node:fs';

const classes: { name: string; comment: string; test: RegExp }[] = [
  { name: 'letter_ranges', comment: 'General category L.', test: /\p{L}/u },
  { name: 'number_ranges', comment: 'General category N.', test: /\p{N}/u },
  { name: 'space_ranges', comment: 'Property White_Space.', test: /\p{White_Space}/u },
];

/** First and last code points of every run that `test` matches; surrogates are no characters. */
function ranges(test: RegExp): [number, number][] {
  const found: [number, number][] = [];
  for (let point = 0; point <= 0x10ffff; point += 1) {
    if ((point >= 0xd800 && point <= 0xdfff) || !test.test(String.fromCodePoint(point))) continue;
    const last = found.at(-1);
    if (last !== undefined && last[1] === point - 1) last[1] = point;
    else found.push([point, point]);
  }
  return found;
}

function table(name: string, comment: string, test: RegExp): string {
  const entries = ranges(test).map(([first, last]) => `{0x${first.toString(16)}, 0x${last.toString(16)}},`);
  const lines: string[] = [];
  for (const entry of entries) {
    const line = lines.at(-1);
    if (line !== undefined && line.length + 1 + entry.length <= 118) lines[lines.length - 1] = `${line} ${entry}`;
    else lines.push(`  ${entry}`);
  }
  return `// ${comment}\ninline constexpr CodeRange ${name}[] = {\n${lines.join('\n')}\n};\n`;
}

const header = `// Character classes of Unicode ${process.versions.unicode ?? 'unknown'}, written by scripts/make-unicode-ranges.ts.
#pragma once

namespace minigpt4 {

// clang-format off
struct CodeRange { char32_t first, last; };

${classes.map((each) => table(each.name, each.comment, each.test)).join('\n')}
// clang-format on
}  // namespace minigpt4
`;
writeFileSync(new URL('../native/text/unicode_ranges.h', import.meta.url), header);
