// The tokenizer's keys, from a Hugging Face folder's tokenizer.model.
import { join } from 'node:path';
import type { GgufKey } from '../addon.js';
import { MiniGptError } from '../errors.js';
import { readOptionalJson, readSmallFile } from '../formats/hugging-face.js';
import { bool, f32s, i32s, text, texts, u32 } from './keys.js';
import type { ConvertNative } from './options.js';

const CONTROL = 3;
const UNUSED = 5;
/** Of pieces that no text is ever split into. */
const PADDING_SCORE = -1000;

export interface TokenizerPlan {
  keys: GgufKey[];
  file: string;
}

/**
 * The tokenizer of the first of `folders` that has one, for an embedding of `vocabulary` rows: rows beyond the pieces get the names of
 * added_tokens.json, or `[PADn]`. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_FORMAT, ERR_SHAPE (more pieces than rows).
 */
export async function planTokenizer(
  folders: readonly string[],
  vocabulary: number,
  native: ConvertNative,
): Promise<TokenizerPlan> {
  const { file, folder, bytes } = await findModel(folders);
  const model = native.readSentencePiece(bytes);
  if (model.pieces.length > vocabulary) {
    throw new MiniGptError(
      'ERR_SHAPE',
      `${file} has ${model.pieces.length} pieces, but the embedding only ${vocabulary} rows; do they belong together?`,
    );
  }
  const added = new Map<number, string>();
  for (const [piece, id] of Object.entries((await readOptionalJson(join(folder, 'added_tokens.json'))) ?? {})) {
    if (typeof id === 'number') added.set(id, piece);
  }
  const pieces = [...model.pieces];
  const scores = [...model.scores];
  const kinds = [...model.kinds];
  for (let id = pieces.length; id < vocabulary; id++) {
    const name = added.get(id);
    pieces.push(name !== undefined && !pieces.includes(name) ? name : `[PAD${id}]`);
    scores.push(PADDING_SCORE);
    kinds.push(name === undefined ? UNUSED : CONTROL);
  }
  const settings = (await readOptionalJson(join(folder, 'tokenizer_config.json'))) ?? {};
  const flag = (name: string, otherwise: boolean): boolean =>
    typeof settings[name] === 'boolean' ? settings[name] : otherwise;
  // bos and eos are the tokenizer's: the config.json of the published Vicuna v0 says 0 and 1, which is wrong.
  const ids: [string, number][] = [
    ['bos', model.bos],
    ['eos', model.eos],
    ['unknown', model.unknown],
    ['padding', model.padding],
  ];
  return {
    file,
    keys: [
      text('tokenizer.ggml.model', 'llama'),
      text('tokenizer.ggml.pre', 'default'),
      texts('tokenizer.ggml.tokens', pieces),
      f32s('tokenizer.ggml.scores', scores),
      i32s('tokenizer.ggml.token_type', kinds),
      ...ids.filter(([, id]) => id >= 0).map(([name, id]) => u32(`tokenizer.ggml.${name}_token_id`, id)),
      bool('tokenizer.ggml.add_bos_token', flag('add_bos_token', true)),
      bool('tokenizer.ggml.add_eos_token', flag('add_eos_token', false)),
      bool('tokenizer.ggml.add_space_prefix', model.addSpacePrefix),
      bool('tokenizer.ggml.remove_extra_whitespaces', model.removeExtraWhitespaces),
    ],
  };
}

async function findModel(folders: readonly string[]): Promise<{ file: string; folder: string; bytes: Uint8Array }> {
  for (const folder of folders) {
    const file = join(folder, 'tokenizer.model');
    try {
      return { file, folder, bytes: await readSmallFile(file) };
    } catch (error) {
      if (!(error instanceof MiniGptError) || error.code !== 'ERR_FILE_NOT_FOUND') throw error;
    }
  }
  throw new MiniGptError(
    'ERR_FILE_NOT_FOUND',
    `${folders.join(' and ')}: no tokenizer.model there; expected the SentencePiece model of the language model (a tokenizer.json is not read: use a GGUF file then)`,
  );
}
