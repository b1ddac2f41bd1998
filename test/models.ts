// Small models for tests: the fixture converted on the spot, and the pictures and ids that belong to it.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { convert } from '../lib/convert.js';

export const fixture = (name = ''): string => fileURLToPath(new URL(`./fixtures/tiny-llama2/${name}`, import.meta.url));

/**
 * By what a CPU level multiplies float weights: levels that have it in common give the same bits, and with quantized weights all do.
 * AMX has its unit's bfloat16 products, whose order of additions is the unit's own; all others have float32's.
 */
export const floatProducts = (level: string): string => (level.startsWith('amx') ? level : 'float32');

export interface TinyModel {
  path: string;
  /** A folder of its own for a test's files. */
  folder: string;
  /** The picture of the expected turn, its wording and the greedy continuation. */
  picture: string;
  template: string;
  greedyIds: number[];
  remove(): void;
}

/** tiny-llama2 with float32 weights: random words without end, in a context of 2048 positions. */
export async function tinyModel(): Promise<TinyModel> {
  const folder = mkdtempSync(join(tmpdir(), 'minigpt4-test-'));
  const path = join(folder, 'tiny.gguf');
  // the fixture's turn is worded as Vicuna's, though its form is Llama 2's
  await convert({
    vit: fixture('eva_vit_g.pth'),
    projection: fixture('pretrained_minigpt4.pth'),
    llm: fixture('llama2'),
    config: fixture('config.json'),
    out: path,
    type: 'f32',
    template: 'vicuna0',
  });
  const { chat } = JSON.parse(readFileSync(fixture('expected.json'), 'utf8')) as { chat: { greedy_ids: number[] } };
  return {
    path,
    folder,
    picture: fixture('images/scene.png'),
    template: 'vicuna0',
    greedyIds: chat.greedy_ids,
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}
