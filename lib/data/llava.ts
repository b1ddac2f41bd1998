// LLaVA's list of conversations: `image`, and `conversations` of what 'human' and 'gpt' say in turn.
import { dirname, resolve } from 'node:path';
import { MiniGptError } from '../errors.js';
import { show } from '../options.js';
import { applyRules } from './captions.js';
import { readJson } from './json-file.js';
import { wrongTurns, type ListedPair } from './listed.js';
import type { DatasetConfig } from './options.js';
import type { Turn } from './pair.js';

/** Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_FILE_FORMAT (no JSON list). */
export async function readLlava(config: DatasetConfig): Promise<ListedPair[]> {
  const list = await readJson(config.storage);
  if (!Array.isArray(list))
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${config.storage}: expected a list of {"image", "conversations"}, found none`,
    );
  const folder = config.images ?? dirname(config.storage);
  return list.map((item: unknown, i): ListedPair => {
    const { id, image, conversations } = (typeof item === 'object' && item !== null ? item : {}) as Record<
      string,
      unknown
    >;
    const name =
      typeof id === 'string' || typeof id === 'number' ? String(id) : typeof image === 'string' ? image : `item ${i}`;
    if (typeof image !== 'string' || image === '') return { name, picture: '', turns: [], problem: 'has no image' };
    const turns = turnsOf(conversations, config.caption);
    const pair: ListedPair = { name, picture: resolve(folder, image), turns: typeof turns === 'string' ? [] : turns };
    const problem = typeof turns === 'string' ? turns : wrongTurns(turns);
    if (problem === undefined) return pair;
    return { ...pair, problem, ...(typeof turns === 'string' && isOutOfOrder(turns) ? { about: 'turns' } : {}) };
  });
}

const outOfOrder = 'expected human and gpt in turn';
const isOutOfOrder = (problem: string): boolean => problem.startsWith(outOfOrder);
const speaker = (part: { from: unknown } | undefined): string =>
  part === undefined ? 'the end' : part.from === undefined ? 'a turn without "from"' : show(part.from);

/** The turns, or why there are none. */
function turnsOf(conversations: unknown, rules: DatasetConfig['caption']): Turn[] | string {
  if (!Array.isArray(conversations) || conversations.length === 0) return 'has no conversations';
  const said = conversations.map((part: unknown) => {
    const { from, value } = (typeof part === 'object' && part !== null ? part : {}) as Record<string, unknown>;
    return { from, value };
  });
  const turns: Turn[] = [];
  for (let i = 0; i < said.length; i += 2) {
    const [asked, answered] = [said[i]!, said[i + 1]];
    if (asked.from !== 'human' || answered?.from !== 'gpt')
      return `${outOfOrder}, found ${speaker(asked)} and then ${speaker(answered)} at turn ${i + 1}`;
    if (typeof asked.value !== 'string' || typeof answered.value !== 'string') return `has no text at ${i}`;
    turns.push(turn(asked.value, applyRules(answered.value, rules)));
  }
  return turns;
}

/** The tag says where the picture stands, which the run's prompt template decides; without other words that template asks too. */
function turn(asked: string, answer: string): Turn {
  const question = asked.replaceAll('<image>', '').trim();
  return question === '' ? { answer } : { question, answer };
}
