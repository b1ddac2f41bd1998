// What lookup decoding gains: the miniature world's scenes described with it and without it, in turn; and what a pass costs that checks
// guesses, on a language model of a real size. The world's folder is the first argument.
//
//   node --import tsx bench/lookup.ts WORLD [--model FILE] [--limit N] [--llm FILE --vision FILE] [--threads N] [--out FILE.json]
//
// Each scene is asked about twice in one conversation, with the prompt that its number gives and with the next one: what the second answer
// repeats of the first is what lookup finds. Every answer must have the ids that single steps give. Beside the time on the clock stands the
// time that the computing threads were on a core, which neighbours of the process change less.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import {
  addon,
  type NativeGenerateRequest,
  type NativeGenerateResult,
  type NativeModel,
  type NativeSequence,
} from '../lib/addon.js';
import { embeddedModelPath } from '../lib/model.js';
import {
  AnswerText,
  renderPrompt,
  stopTexts,
  templateOf,
  withImage,
  withQuestion,
  type Message,
} from '../lib/prompt.js';
import { DISTURBED_SHARE, threadTimes, threadUse } from '../lib/bench/machine.js';
import { rounded } from '../lib/bench/measured-test.js';
import { describeFile, writeRecord } from './record.js';
import { encodeFile, sceneFile } from './world.js';

/** Sums over answers. */
interface Sum {
  lookup: number;
  tokens: number;
  /** Passes that gave them: the first token of an answer comes from the prompt's. */
  passes: number;
  guessed: number;
  accepted: number;
  decodeMs: number;
  onCoreMs: number;
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: 'string', default: embeddedModelPath },
    limit: { type: 'string' },
    llm: { type: 'string' },
    vision: { type: 'string' },
    threads: { type: 'string' },
    out: { type: 'string' },
  },
});
const world = positionals[0];
if (!world) {
  console.error(
    'usage: lookup.ts WORLD [--model FILE] [--limit N] [--llm FILE --vision FILE] [--threads N] [--out FILE.json]',
  );
  process.exit(2);
}
const threads = values.threads ? { threads: Number(values.threads) } : {};

const draws = {
  greedy: { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 },
  sampled: { temperature: 1, topK: 50, topP: 0.9, minP: 0, repetitionPenalty: 1.05 }, // the defaults
};
type Draw = (typeof draws)[keyof typeof draws];

interface Measured extends NativeGenerateResult {
  onCoreMs: number;
}

/** Milliseconds that all threads but JavaScript's were on a core until now; 0 where the system does not tell. */
function onCore(): number {
  let ms = 0;
  for (const [id, { on }] of threadTimes()) if (id !== String(process.pid)) ms += on / 1e6;
  return ms;
}

async function answer(sequence: NativeSequence, request: NativeGenerateRequest): Promise<Measured> {
  const before = onCore();
  const result = await sequence.generate(request, () => {});
  return { ...result, onCoreMs: onCore() - before };
}

const emptySum = (lookup: number): Sum => ({
  lookup,
  tokens: 0,
  passes: 0,
  guessed: 0,
  accepted: 0,
  decodeMs: 0,
  onCoreMs: 0,
});

function add(sum: Sum, { ids, guessedTokens, acceptedTokens, decodeMs, onCoreMs }: Measured): void {
  sum.tokens += ids.length - 1;
  sum.passes += ids.length - 1 - acceptedTokens;
  sum.guessed += guessedTokens;
  sum.accepted += acceptedTokens;
  sum.decodeMs += decodeMs;
  sum.onCoreMs += onCoreMs;
}

/** The answers to a prompt with every number of guesses, in a sequence that holds all of the prompt but its last position. */
async function inTurn(model: NativeModel, request: NativeGenerateRequest, sums: Sum[], first: number) {
  const sequence = model.openSequence();
  await sequence.generate({ ...request, maxTokens: 1 }, () => {});
  const results: Measured[] = [];
  for (let i = 0; i < sums.length; i++) {
    const sum = sums[(first + i) % sums.length]!;
    const result = await answer(sequence, { ...request, lookup: sum.lookup });
    add(sum, result);
    results.push(result);
  }
  sequence.close();
  const { text, ids } = results[0]!;
  if (results.some((other) => String(other.ids) !== String(ids))) throw new Error(`answers differ: ${text}`);
  return text;
}

/** Both answers about every scene; sums by turn and number of guesses. */
async function describeScenes(model: NativeModel, draw: Draw, limit?: number): Promise<Sum[][]> {
  const { prompts, scenes } = JSON.parse(await readFile(join(world!, 'eval', 'scenes.json'), 'utf8')) as {
    prompts: string[];
    scenes: { file: string }[];
  };
  const turns = [0, 1].map(() => [0, 2, 4, 8, 16].map(emptySum));
  const { template, eos } = model.info();
  for (const [i, { file }] of scenes.slice(0, limit).entries()) {
    let messages: readonly Message[] = withImage([], await encodeFile(model, sceneFile(world!, file)));
    for (const [turn, sums] of turns.entries()) {
      const asked = withQuestion(messages, prompts[(i + turn) % prompts.length]!);
      const prompt = renderPrompt(templateOf(template), asked);
      const request = { ...draw, prompt, maxTokens: 90, seed: i, stop: [...stopTexts], stopIds: [eos] };
      const answered = new AnswerText();
      answered.push(await inTurn(model, request, sums, i));
      answered.finish();
      messages = [...asked, { role: 'assistant', text: answered.text }];
    }
  }
  return turns;
}

/** What a pass takes that checks so many guesses, beside a pass of one row. */
async function passCosts(llm: string, vision: string) {
  const model = await addon.loadModel({ model: vision, llm, contextLength: 512, ...threads });
  const sums = [0, 1, 3, 7, 15].map(emptySum);
  const prompt = [{ ids: Int32Array.from({ length: 64 }, (_, at) => 3 + ((at * 104729) % 30000)) }];
  // a penalty far below 1 makes random weights say one token again and again, so that every guess is right
  const request = { ...draws.greedy, repetitionPenalty: 0.1, prompt, maxTokens: 65, seed: 0, stop: [], stopIds: [] };
  for (let round = 0; round < 4; round++) await inTurn(model, request, sums, round);
  await model.close();
  const ofOne = sums[0]!;
  return sums.map(({ lookup, passes, guessed, decodeMs, onCoreMs }) => ({
    lookup,
    rows: rounded(1 + guessed / passes, 2),
    ms: rounded(decodeMs / passes),
    onCoreMs: rounded(onCoreMs / passes),
    timesOneRow: rounded(onCoreMs / passes / (ofOne.onCoreMs / ofOne.passes)),
  }));
}

const before = threadTimes();
const model = await addon.loadModel({ model: values.model, ...threads });
await describeScenes(model, draws.greedy, 4); // clocks and caches
const answers = [];
for (const [name, draw] of Object.entries(draws)) {
  const turns = await describeScenes(model, draw, values.limit ? Number(values.limit) : undefined);
  for (const [turn, sums] of turns.entries()) {
    for (const { lookup, tokens, passes, guessed, accepted, decodeMs, onCoreMs } of sums) {
      const entry = {
        draw: name,
        turn: turn + 1,
        lookup,
        tokens,
        passes,
        guessed,
        accepted,
        tokensPerPass: rounded(tokens / passes),
        tokensPerSecond: rounded((1000 * tokens) / decodeMs, 0),
        timesWithout: rounded(sums[0]!.decodeMs / decodeMs),
        tokensPerSecondOnCore: rounded((1000 * tokens) / onCoreMs, 0),
        timesWithoutOnCore: rounded(sums[0]!.onCoreMs / onCoreMs),
      };
      answers.push(entry);
      console.log(JSON.stringify(entry));
    }
  }
}
await model.close();
const { llm, vision } = values;
const passes = llm && vision ? await passCosts(llm, vision) : undefined;
for (const entry of passes ?? []) console.log(JSON.stringify(entry));
const waitedShare = threadUse(before)?.waitedShare;
console.log(`waited for a core: ${waitedShare?.toFixed(3)}`);
if (values.out) {
  await writeRecord(values.out, {
    ...threads,
    ...(waitedShare === undefined ? {} : { waitedShare, disturbed: waitedShare > DISTURBED_SHARE }),
    model: await describeFile(values.model),
    answers,
    ...(passes ? { llm: await describeFile(llm!), passes } : {}),
  });
}
