// The folder of the original's second stage: `filter_cap.json` with captions, the pictures in `image/`.
import { join } from 'node:path';
import { MiniGptError } from '../errors.js';
import { applyRules } from './captions.js';
import { readJson } from './json-file.js';
import { wrongTurns, type ListedPair } from './listed.js';
import type { DatasetConfig } from './options.js';

/** Errors: ERR_FILE_NOT_FOUND (no filter_cap.json), ERR_FILE_READ, ERR_FILE_FORMAT (no JSON, no list of annotations). */
export async function readCcSbuAlign(config: DatasetConfig): Promise<ListedPair[]> {
  const path = join(config.storage, 'filter_cap.json');
  const value = await readJson(path);
  const list: unknown =
    typeof value === 'object' && value !== null && 'annotations' in value ? value.annotations : value;
  if (!Array.isArray(list)) {
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${path}: expected {"annotations": [{"image_id", "caption"}, …]} or such a list`,
    );
  }
  const folder = config.images ?? join(config.storage, 'image');
  return list.map((item: unknown, i): ListedPair => {
    const { image_id: id, caption } = (typeof item === 'object' && item !== null ? item : {}) as Record<
      string,
      unknown
    >;
    if ((typeof id !== 'string' || id === '') && typeof id !== 'number')
      return { name: `item ${i}`, picture: '', turns: [], problem: 'has no image_id' };
    const pair: ListedPair = { name: String(id), picture: join(folder, `${id}.jpg`), turns: [] };
    if (typeof caption === 'string') pair.turns.push({ answer: applyRules(caption, config.caption) });
    const problem = wrongTurns(pair.turns);
    return problem === undefined ? pair : { ...pair, problem };
  });
}
