// What the doctor finds in data sets that were made with one fault of each kind, and that its tables count right.
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Digests } from '../lib/data/doctor-digests.js';
import { reportText } from '../lib/data/doctor-report.js';
import { Tally } from '../lib/data/doctor-tally.js';
import { doctor, type DoctorReport } from '../lib/data/doctor.js';
import { TarWriter } from '../lib/data/tar-writer.js';
import { Random } from '../lib/random.js';
import { minigpt4 } from './command.js';
import { rejects } from './rejects.js';

const tests = suite('data doctor');
const folder = mkdtempSync(join(tmpdir(), 'minigpt4-doctor-'));
tests.after(() => rmSync(folder, { recursive: true, force: true }));

const picture = (width: number, height: number, red: number) =>
  sharp({ create: { width, height, channels: 3, background: { r: red, g: 90, b: 20 } } })
    .jpeg()
    .toBuffer();
const good = await Promise.all(Array.from({ length: 6 }, (_, i) => picture(100 + i, 80, i * 20)));

const pictures = join(folder, 'pictures');
mkdirSync(pictures);
for (const [i, bytes] of good.entries()) writeFileSync(join(pictures, `${i}.jpg`), bytes);
writeFileSync(join(pictures, 'again.jpg'), good[0]!);
writeFileSync(join(pictures, 'icon.jpg'), await picture(16, 90, 7));
writeFileSync(join(pictures, 'cut.jpg'), good[1]!.subarray(0, 300));
writeFileSync(join(pictures, 'page.jpg'), '<html>404</html>');
writeFileSync(join(pictures, 'empty.jpg'), '');
const long = 'The image shows a large fruit on the left. '.repeat(40);
const lines: [string, unknown][] = [
  ['0.jpg', 'A fine caption.'],
  ['1.jpg', 'Another one.'],
  ['again.jpg', 'A fine caption.'], // 3rd: pair 1 again
  ['again.jpg', 'Other words.'], // the picture again
  ['icon.jpg', 'An icon.'],
  ['cut.jpg', 'Cut.'],
  ['page.jpg', 'A page.'],
  ['empty.jpg', 'Nothing.'],
  ['missing.jpg', 'Gone.'],
  ['2.jpg', '  '],
  ['3.jpg', long],
  ['4.jpg', 'Ends here ### Human: and goes on'],
  ['5.jpg', 'Rings a bell \u0007'],
  ['5.jpg', 7], // no text
];
const list = join(folder, 'list.jsonl');
writeFileSync(
  list,
  [...lines.map(([path, caption]) => JSON.stringify({ path: `pictures/${path}`, caption })), '{"path": torn'].join(
    '\n',
  ),
);

/** { kind: [count, name of the first] } */
const found = ({ findings }: DoctorReport) =>
  Object.fromEntries(findings.map(({ kind, count, examples }) => [kind, [count, examples[0]?.name]]));

const expected = {
  'missing-picture': [1, 'pictures/missing.jpg'],
  'broken-picture': [3, 'pictures/cut.jpg'],
  'empty-caption': [2, 'pictures/2.jpg'],
  'broken-entry': [1, 'line 15'],
  'long-caption': [1, 'pictures/3.jpg'],
  'template-words': [1, 'pictures/4.jpg'],
  'control-characters': [1, 'pictures/5.jpg'],
  'small-picture': [1, 'pictures/icon.jpg'],
  'same-pair': [1, 'pictures/again.jpg'],
  'same-picture': [1, 'pictures/again.jpg'],
};

tests('one fault of each kind in a list, each found and named', async () => {
  const report = await doctor({ path: list });
  assert.is(report.format, 'list');
  assert.is(report.complete, true);
  assert.is(report.pairs, 15);
  assert.is(report.usable, 8);
  assert.equal(found(report), expected);
  const reasons = Object.fromEntries(report.findings.map(({ kind, examples }) => [kind, examples[0]!.reason]));
  assert.match(reasons['same-pair']!, /pair 1 /);
  assert.match(reasons['template-words']!, /"###"/);
  assert.match(reasons['control-characters']!, /U\+0007/);
  assert.match(reasons['small-picture']!, /16 x 90/);
  assert.is(report.tokens.spread!.count, 8);
  assert.ok(report.tokens.spread!.most > 160);
  assert.equal(report.pictures.kinds, { jpeg: 8 });
  assert.is(report.pictures.width!.most, 105);
});

tests('limits of tokens, pixels and examples', async () => {
  const strict = await doctor({ path: list, maxTextLength: 1, maxPixels: 8200, examples: 1 });
  // 102 x 80 and less are within 8200 pixels: 100, 101 and 102 wide, twice the first, and the icon
  assert.is(found(strict)['large-picture']![0], 3);
  assert.is(found(strict)['long-caption']![0], strict.usable);
  assert.is(strict.usable, 5);
  assert.is(strict.findings.find(({ kind }) => kind === 'long-caption')!.examples.length, 1);
  const fewer = await doctor({ path: list, limit: 2 });
  assert.is(fewer.pairs, 2);
  assert.is(fewer.complete, false);
});

tests('an end sign counts: a caption of exactly max_txt_len with it is none too long', async () => {
  const one = join(folder, 'one.csv');
  writeFileSync(one, 'path,caption\npictures/0.jpg,There is a fish in the centre.');
  const { tokens } = await doctor({ path: one });
  const count = tokens.spread!.most;
  const findings = async (maxTextLength: number) => (await doctor({ path: one, maxTextLength })).findings.length;
  assert.is(await findings(count), 0);
  assert.is(await findings(count - 1), 1);
  assert.ok((await doctor({ path: one, endSign: '###</s>###' })).tokens.spread!.most > count);
});

/** A shard of the good pictures with captions. */
async function shard(path: string, members: [string, Uint8Array | string][]): Promise<void> {
  const tar = await TarWriter.open(path);
  for (const [name, contents] of members) await tar.add(name, Buffer.from(contents));
  await tar.finish();
}
const members = good.flatMap((bytes, i): [string, Uint8Array | string][] => [
  [`${i}.jpg`, bytes],
  [`${i}.json`, JSON.stringify({ caption: `Number ${i}` })],
]);

tests('shards: cut, empty, missing, and members that do not belong together', async () => {
  const home = join(folder, 'shards');
  mkdirSync(home);
  const path = (i: number) => join(home, `${i}.tar`);
  await shard(path(0), members);
  writeFileSync(path(1), readFileSync(path(0)).subarray(0, 4000));
  await shard(path(2), [['readme.md', 'nothing']]);
  await shard(path(4), [
    ['a.jpg', good[0]!],
    ['b.json', '{"caption": "alone"}'],
    ['c.jpg', good[1]!],
    ['c.json', '{"text": "no caption"}'],
    ['d.png', ''],
    ['d.txt', 'an empty picture'],
  ]);
  const report = await doctor({ path: join(home, '{0..4}.tar') });
  assert.is(report.shards, 5);
  const kinds = found(report);
  assert.equal(kinds['shard-problem'], [3, '1.tar']);
  assert.equal(kinds['empty-caption'], [1, '4.tar/a']);
  assert.equal(kinds['missing-picture'], [1, '4.tar/b']);
  assert.equal(kinds['broken-entry'], [1, '4.tar/c']);
  assert.equal(kinds['broken-picture'], [1, '4.tar/d']);
  assert.equal(report.tokens.maxTextLength, 32);
  // the folder has the same shards but the missing one
  assert.is(found(await doctor({ path: home }))['shard-problem']![0], 2);
});

tests('an abort gives the report of what was looked at', async () => {
  const stop = new AbortController();
  const report = await doctor({
    path: list,
    signal: stop.signal,
    onProgress: (pairs) => pairs === 2 && stop.abort(),
  });
  assert.is(report.complete, false);
  // eight are under way at once
  assert.ok(report.pairs >= 2 && report.pairs <= 11, String(report.pairs));
  await rejects('ERR_ABORTED', doctor({ path: list, signal: AbortSignal.abort() }));
});

tests('what is no data set is an error; one without pairs is a finding', async () => {
  await rejects('ERR_FILE_NOT_FOUND', doctor({ path: join(folder, 'nothing') }));
  await rejects('ERR_FILE_NOT_FOUND', doctor({ path: join(folder, 'nothing.tar') }));
  assert.match((await rejects('ERR_FILE_FORMAT', doctor({ path: pictures }))).message, /filter_cap\.json/);
  assert.match((await rejects('ERR_ARGUMENT', doctor({ path: list, format: 'lava' }))).message, /mean llava/);
  await rejects('ERR_FILE_FORMAT', doctor({ path: list, model: list }));
  const header = join(folder, 'header.csv');
  writeFileSync(header, 'path,caption\n');
  assert.equal(Object.keys(found(await doctor({ path: header }))), ['no-pairs']);
});

tests('the command: report, advice and exit codes', async () => {
  const bad = await minigpt4(['data', 'doctor', list]);
  assert.is(bad.code, 1, bad.stderr);
  assert.match(bad.stdout, /list, 15 pairs, 8 usable\n\nTraining passes over:\n/);
  assert.match(bad.stdout, /pictures\/missing\.jpg: .*no such file/);
  assert.match(bad.stdout, /Worth a look:/);
  assert.not.match(bad.stdout, /[\x00-\x09\x0b-\x1f]/);
  const json = await minigpt4(['data', 'doctor', list, '--json', '--max-txt-len', '999']);
  assert.is(json.code, 1);
  const report = JSON.parse(json.stdout) as DoctorReport;
  assert.is(report.tokens.maxTextLength, 999);
  assert.is(found(report)['long-caption'], undefined);
  const fine = await minigpt4(['data', 'doctor', list, '--limit', '2']);
  assert.is(fine.code, 0, fine.stderr + fine.stdout);
  assert.is((await minigpt4(['data', 'doctor', list, '--text-processor', 'clip'])).code, 2);
});

tests('digests: the number of the first meeting, through many growths', () => {
  const digests = new Digests();
  const digest = (i: number) => createHash('sha256').update(String(i)).digest();
  for (let i = 0; i < 5000; i++) assert.is(digests.meet(digest(i), i), undefined);
  for (let i = 0; i < 5000; i += 7) assert.is(digests.meet(digest(i), 9999), i);
  assert.is(digests.size, 5000);
  // all bytes count, not the first word alone
  const [a, b] = [new Uint8Array(16), new Uint8Array(16)];
  b[15] = 1;
  assert.is(digests.meet(a, 1), undefined);
  assert.is(digests.meet(b, 2), undefined);
  assert.is(digests.meet(a, 3), 1);
});

tests('a tally has the percentiles of the sorted numbers, and bars that hold them all', () => {
  const random = new Random(3);
  const values = Array.from({ length: 501 }, () => random.below(random.below(300) + 1));
  const tally = new Tally();
  for (const value of values) tally.add(value);
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.ceil(share * sorted.length) - 1];
  const { p10, p50, p90, p99, mean, least, most } = tally.spread()!;
  assert.equal([least, p10, p50, p90, p99, most], [sorted[0], at(0.1), at(0.5), at(0.9), at(0.99), sorted.at(-1)]);
  assert.ok(Math.abs(mean - values.reduce((sum, value) => sum + value, 0) / values.length) < 1e-9);
  for (const { from, to, count } of tally.bars())
    assert.is(count, values.filter((value) => value >= from && value <= to).length, `${from} to ${to}`);
  assert.is(
    tally.bars().reduce((sum, { count }) => sum + count, 0),
    values.length,
  );
  assert.is(new Tally().spread(), undefined);
});

tests('a list that is no UTF-8 text is refused, without its control characters', async () => {
  const csv = join(folder, 'odd.csv');
  const told = async (bytes: string | Buffer) => {
    writeFileSync(csv, bytes);
    return (await rejects('ERR_FILE_FORMAT', doctor({ path: csv }))).message;
  };
  assert.match(await told(Buffer.from('\ufeffpath,caption\n', 'utf16le')), /found UTF-16$/);
  assert.match(await told('path,caption\na.jpg,\0'), /found no text \(a zero byte at 19\)$/);
  const header = await told(`\u001b[2J${'x'.repeat(500)},b\n`);
  assert.match(header, /found "\\u001b\[2jx+…", "b"/);
  assert.ok(header.length < 400, header);
  const { code, stderr } = await minigpt4(['data', 'doctor', join(folder, '\u001b[31mnone.csv')]);
  assert.is(code, 1);
  assert.not.match(stderr, /\u001b/);
});

tests('a Latin-1 list is a finding that training is hurt by', async () => {
  const csv = join(folder, 'latin.csv');
  writeFileSync(csv, Buffer.from('path,caption\npictures/0.jpg,A caf\xe9.\npictures/1.jpg,Plain.\n', 'latin1'));
  const report = await doctor({ path: csv });
  assert.is(report.usable, 1);
  assert.equal(found(report)['broken-entry'], [1, 'line 2']);
  assert.ok(report.findings.find(({ kind }) => kind === 'broken-entry')!.skipped);
});

tests('turns out of order are a finding of their own, and one of a kind is told as one', async () => {
  const path = join(folder, 'turns.json');
  writeFileSync(
    path,
    JSON.stringify([{ id: 'a', image: 'pictures/0.jpg', conversations: [{ from: 'human', value: 'What?' }] }]),
  );
  const report = await doctor({ path });
  assert.equal(found(report), { 'turn-order': [1, 'a'] });
  assert.match(report.findings[0]!.examples[0]!.reason, /in turn, found "human" and then the end at turn 1$/);
  const text = reportText(report);
  assert.match(text, /1 pair, 0 usable/);
  assert.match(text, /^ {2}1 conversation whose/m);
});

tests('names are cut in the report', async () => {
  const path = join(folder, 'names.jsonl');
  writeFileSync(path, JSON.stringify({ path: 'n'.repeat(3000), caption: 'A caption.' }));
  for (const line of reportText(await doctor({ path })).split('\n')) assert.ok(line.length < 260, line);
});

tests.run();
