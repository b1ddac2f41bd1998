// Puts what gpu/check.sh found into one JSON record and prints how near to their floors the ops came: record.mjs WORK OUT. It runs
// where nothing is installed; what it writes is formatted as the repository's format check wants it.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [work, out] = process.argv.slice(2);
const text = (path) => (existsSync(path) ? readFileSync(path, 'utf8').trimEnd() : undefined);
const lines = (name) =>
  (text(join(work, name)) ?? '')
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line));

const peers = lines('peers.jsonl');
/** Torch's time for the same: of the same name, or a product of the same shape (torch's is always float16's). */
const shape = (name) => /\d+ x \d+ -> \d+$/.exec(name)?.[0];
function torch(name) {
  const same = peers.find((peer) => peer.name === name);
  if (same) return same.us;
  if (!/^(ViT )?matmul \w/.test(name) || /_dx/.test(name)) return undefined;
  return peers.find((peer) => peer.name?.startsWith('linear') && shape(peer.name) === shape(name))?.us;
}
const timed = (name) =>
  lines(name)
    .filter((row) => row.name)
    .map((row) => {
      const us = torch(row.name);
      return us === undefined ? row : { ...row, torch_us: +us.toFixed(3) };
    });

const record = {
  date: new Date().toISOString(),
  kit: JSON.parse(text(join(work, 'kit.json')) ?? 'null'),
  machine: text(join(work, 'logs', 'machine')) ?? '',
  rates: peers.find((peer) => peer.matrix) ?? null,
  verdicts: (text(join(work, 'summary.tsv')) ?? '').split('\n').map((line) => {
    const [name, verdict, seconds] = line.split('\t');
    return { name, verdict, seconds: Number(seconds) };
  }),
  ops: timed('ops.jsonl'),
  steps: timed('steps.jsonl'),
  counters: lines('counters.jsonl'),
  torch: peers.filter((peer) => peer.name),
};
writeFileSync(out, `${JSON.stringify(record, undefined, 2)}\n`);

for (const { name, us, share, torch_us, tokens_s, pictures_s } of [...record.ops, ...record.steps]) {
  const rate = tokens_s ? `${tokens_s} tokens/s` : pictures_s ? `${pictures_s} pictures/s` : '';
  const beside = torch_us === undefined ? rate : `torch ${torch_us.toFixed(1)} us`;
  console.log(
    `${name.padEnd(52)} ${us.toFixed(1).padStart(10)} us ${(100 * share).toFixed(1).padStart(6)} % of the floor  ${beside}`,
  );
}
