// How well answers about the miniature world's 200 evaluation scenes agree with the reference's, and how often a model names
// the main object. The world's folder is the first argument; further arguments are options.
//
//   node --import tsx bench/miniature-world.ts WORLD [--model models/minigpt4-miniature.gguf] [--agree TYPE] [--limit N] [--out FILE.json]
//
// Two parts: the world's own checkpoints converted with `--type f16` (or --agree), whose greedy token ids are compared with
// eval/reference_answers.json, at each first difference with the margin between the two logits; then the embedded model,
// whose answers are searched for the main object's name.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { addon, type NativeModel, type TypeName } from '../lib/addon.js';
import { convert } from '../lib/convert.js';
import { objectNames } from '../lib/eval/object-names.js';
import { nameFinder } from '../lib/eval/scenes.js';
import { embeddedModelPath } from '../lib/model.js';
import { describeFile, writeRecord, type RecordedFile } from './record.js';
import { ask, encodeFile, promptOf, referenceAnswers, sceneFile, worldSources } from './world.js';

interface Scene {
  file: string;
  style: string;
  main: string;
}
interface Parted {
  file: string;
  /** Index of the first differing token, the ids there, and the logits' difference in the model's own eyes. */
  at: number;
  expected: number;
  found: number;
  margin: number;
}
interface Naming {
  style: string;
  scenes: number;
  named: number;
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: 'string', default: embeddedModelPath },
    agree: { type: 'string', default: 'f16' },
    limit: { type: 'string' },
    out: { type: 'string' },
    kv: { type: 'string', default: 'f16' },
  },
});
const world = positionals[0];
if (!world) {
  console.error(
    'usage: miniature-world.ts WORLD [--model FILE] [--agree TYPE] [--kv f16|f32] [--limit N] [--out FILE.json]',
  );
  process.exit(2);
}

const json = async <T>(...path: string[]): Promise<T> => JSON.parse(await readFile(join(world, ...path), 'utf8')) as T;
const scenes = new Map(
  (await json<{ scenes: Scene[] }>('eval', 'scenes.json')).scenes.map((scene) => [scene.file, scene]),
);
const { maxTokens, answers } = await referenceAnswers(world, values.limit);
const encode = (model: NativeModel, file: string) => encodeFile(model, sceneFile(world, file));

/** Greedy ids against the reference's. */
async function agreement(type: TypeName): Promise<{ converted: RecordedFile; same: number; parted: Parted[] }> {
  const folder = await mkdtemp(join(tmpdir(), 'minigpt4-world-'));
  const out = join(folder, 'world.gguf');
  await convert({ ...worldSources(world!), out, type });
  const model = await addon.loadModel({ model: out, kvType: values.kv as 'f16' | 'f32' });
  let same = 0;
  const parted: Parted[] = [];
  for (const { file, prompt, ids } of answers) {
    const image = await encode(model, file);
    const found = Array.from((await ask(model, image, prompt, maxTokens)).ids);
    const at = ids.findIndex((id, i) => found[i] !== id);
    if (at < 0 && found.length === ids.length) {
      ++same;
      continue;
    }
    const where = at < 0 ? ids.length : at;
    const stages = await model.tracePrompt([
      ...promptOf(model, image, prompt),
      { ids: Int32Array.from(ids.slice(0, where)) },
    ]);
    const vocabulary = model.info().vocabulary;
    const last = stages['logits']!.subarray(-vocabulary);
    const expected = ids[where] ?? -1;
    const other = found[where] ?? -1;
    parted.push({ file, at: where, expected, found: other, margin: last[other]! - last[expected]! });
  }
  await model.close();
  const converted = await describeFile(out);
  await rm(folder, { recursive: true });
  return { converted, same, parted };
}

/** How often the main object's name stands in the answer. */
async function naming(path: string): Promise<Naming[]> {
  const model = await addon.loadModel({ model: path });
  const find = nameFinder([...objectNames, ...[...scenes.values()].map(({ main }) => main)]);
  const byStyle = new Map<string, Naming>();
  for (const { file, prompt } of answers) {
    const scene = scenes.get(file)!;
    const { text } = await ask(model, await encode(model, file), prompt, maxTokens);
    const entry = byStyle.get(scene.style) ?? { style: scene.style, scenes: 0, named: 0 };
    ++entry.scenes;
    if (find(text).has(scene.main.toLowerCase())) ++entry.named;
    byStyle.set(scene.style, entry);
  }
  await model.close();
  return [...byStyle.values()];
}

const share = (part: number, whole: number): string => `${part} of ${whole} (${((100 * part) / whole).toFixed(1)} %)`;

const { converted, same, parted } = await agreement(values.agree as TypeName);
console.log(
  `converted with --type ${values.agree}, cache in ${values.kv}: the reference's exact token ids in ${share(same, answers.length)}`,
);
for (const { file, at, expected, found, margin } of parted) {
  console.log(`  ${file}: parts at token ${at}: ${found} instead of ${expected}, ahead by ${margin.toFixed(4)} logits`);
}
const named = await naming(values.model);
for (const { style, scenes: count, named: right } of named) {
  const theirs = answers.filter((answer) => scenes.get(answer.file)!.style === style && answer.main_named).length;
  console.log(
    `${values.model}, ${style}: main object named in ${share(right, count)}; the reference: ${share(theirs, count)}`,
  );
}
if (values.out) {
  const { agree: type, kv } = values;
  await writeRecord(values.out, {
    scenes: answers.length,
    agreement: { model: converted, type, kv, same, parted },
    naming: { model: await describeFile(values.model), byStyle: named },
  });
}
