// What rounding costs: image tokens and answers of models that differ in one number type alone.
//
//   node --import tsx bench/rounding.ts WORLD [--fixture FOLDER]... [--limit N] [--out FILE.json]
//
// WORLD is the miniature world's folder; a fixture is a folder with checkpoints, config.json and pictures as test/fixtures/README.md
// says. The ViT in f16, bf16 and q8_0 beside f32: the cosine of every image token with that of f32, and in how many of the
// world's scenes the greedy answer is the same in every token. The cache in f16 and q8_0 beside f32: the answers likewise.
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { addon, type TypeName } from '../lib/addon.js';
import { convert, type ConvertOptions } from '../lib/convert.js';
import { writeRecord } from './record.js';
import { ask, encodeFile, referenceAnswers, sceneFile, worldSources } from './world.js';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    fixture: { type: 'string', multiple: true, default: [] },
    limit: { type: 'string' },
    out: { type: 'string' },
  },
});
const world = positionals[0];
if (!world) {
  console.error('usage: rounding.ts WORLD [--fixture FOLDER]... [--limit N] [--out FILE.json]');
  process.exit(2);
}
const work = await mkdtemp(join(tmpdir(), 'minigpt4-rounding-'));

/** A model whose ViT has one type and whose other matrices another. */
async function converted(name: string, sources: Omit<ConvertOptions, 'out'>, vitType: TypeName, type: TypeName) {
  const out = join(work, `${name}-${vitType}.gguf`);
  await convert({ ...sources, out, type, vitType });
  const vit = (await addon.readGguf(out)).tensors.filter(({ name: tensor }) => /^v\..*\.weight$/.test(tensor));
  const size = (of: typeof vit) => of.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  return { out, share: size(vit.filter((tensor) => tensor.type === vitType)) / size(vit) };
}

/** Of every token of one picture with the same token of another encoding. */
function cosines(a: Float32Array, b: Float32Array, tokens: number): number[] {
  const width = a.length / tokens;
  return Array.from({ length: tokens }, (_, t) => {
    let [dot, aa, bb] = [0, 0, 0];
    for (let i = t * width; i < (t + 1) * width; ++i) {
      dot += a[i]! * b[i]!;
      aa += a[i]! ** 2;
      bb += b[i]! ** 2;
    }
    return dot / Math.sqrt(aa * bb);
  });
}

interface TokensOf {
  type: TypeName;
  /** Of the ViT's weights that are multiplied with, how many have the type: rows that are no multiple of 32 stay f16 beside q8_0. */
  share: number;
  meanCosine: number;
  leastCosine: number;
}

const rounded = ['f16', 'bf16', 'q8_0'] as const;

/** Image tokens of all pictures with each type of the ViT's weights, beside f32. */
async function imageTokens(
  name: string,
  sources: Omit<ConvertOptions, 'out'>,
  pictures: string[],
): Promise<TokensOf[]> {
  const tokensOf = async (type: TypeName) => {
    const { out, share } = await converted(name, sources, type, 'f32');
    const model = await addon.loadModel({ model: out });
    const images: { values: Float32Array; tokens: number }[] = [];
    for (const picture of pictures) {
      const image = await encodeFile(model, picture);
      images.push({ values: image.toFloat32Array(), tokens: image.tokens });
    }
    await model.close();
    await rm(out);
    return { images, share };
  };
  const exact = await tokensOf('f32');
  const found: TokensOf[] = [];
  for (const type of rounded) {
    const { images, share } = await tokensOf(type);
    const all = images.flatMap(({ values: each, tokens }, i) => cosines(each, exact.images[i]!.values, tokens));
    const meanCosine = all.reduce((sum, each) => sum + each, 0) / all.length;
    found.push({ type, share, meanCosine, leastCosine: all.reduce((least, each) => Math.min(least, each), 1) });
    console.log(
      `${name}, ViT in ${type} (${(100 * share).toFixed(0)} % of its weights): cosine with f32 ${meanCosine.toFixed(6)}, at least ${found.at(-1)!.leastCosine.toFixed(6)}`,
    );
  }
  return found;
}

// ---- the world's answers

const { maxTokens, answers } = await referenceAnswers(world, values.limit);
const sources = worldSources(world);

async function greedy(model: string, kvType: 'f32' | 'f16' | 'q8_0'): Promise<string[]> {
  const loaded = await addon.loadModel({ model, kvType });
  const ids: string[] = [];
  for (const { file, prompt } of answers) {
    const image = await encodeFile(loaded, sceneFile(world!, file));
    ids.push(String(Array.from((await ask(loaded, image, prompt, maxTokens)).ids)));
  }
  await loaded.close();
  return ids;
}

const same = (found: string[], expected: string[]): number => found.filter((ids, i) => ids === expected[i]).length;

const exact = (await converted('world', sources, 'f32', 'f16')).out;
const expected = await greedy(exact, 'f32');
const byCache: { kvType: 'f16' | 'q8_0'; same: number }[] = [];
for (const kvType of ['f16', 'q8_0'] as const) {
  byCache.push({ kvType, same: same(await greedy(exact, kvType), expected) });
  console.log(`answers with a cache in ${kvType}: ${byCache.at(-1)!.same} of ${answers.length} as with f32`);
}
await rm(exact);
const byVit: { type: TypeName; same: number }[] = [];
for (const type of rounded) {
  const { out } = await converted('world', sources, type, 'f16');
  byVit.push({ type, same: same(await greedy(out, 'f32'), expected) });
  console.log(`answers with the ViT in ${type}: ${byVit.at(-1)!.same} of ${answers.length} as with f32`);
  await rm(out);
}

const tokens: { model: string; pictures: number; byVit: TokensOf[] }[] = [];
const scenes = answers.map(({ file }) => sceneFile(world, file));
tokens.push({ model: 'world', pictures: scenes.length, byVit: await imageTokens('world', sources, scenes) });
for (const folder of values.fixture) {
  const at = (name: string): string => join(folder, name);
  const pictures = (await readdir(at('images'))).map((name) => join(folder, 'images', name));
  const llm = (await readdir(folder)).find((name) => existsSync(join(folder, name, 'tokenizer.model')));
  if (llm === undefined) throw new Error(`${folder}: expected a folder with tokenizer.model in it, found none`);
  const fixture = {
    vit: at('eva_vit_g.pth'),
    ...(existsSync(at('blip2_pretrained_flant5xxl.pth')) ? { qformer: at('blip2_pretrained_flant5xxl.pth') } : {}),
    llm: at(llm),
    config: at('config.json'),
    projection: at('pretrained_minigpt4.pth'),
  };
  const name = basename(folder);
  tokens.push({ model: name, pictures: pictures.length, byVit: await imageTokens(name, fixture, pictures) });
}
await rm(work, { recursive: true });
if (values.out)
  await writeRecord(values.out, { imageTokens: tokens, answers: { scenes: answers.length, byVit, byCache } });
