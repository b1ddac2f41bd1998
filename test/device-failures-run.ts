// One process of device-failures.test.ts: prints what became of each step as JSON. The word `pictures` adds some that are encoded together.
import { addon, type NativeModel } from '../lib/addon.js';
import { MiniGptError } from '../lib/errors.js';
import { gray, question, request } from './device-models.js';

const [path, device, more] = process.argv.slice(2) as [string, string, string?];
const steps: string[] = [];
const messages: string[] = [];

/** Notes what became of it; undefined where it failed. */
async function step<T>(name: string, body: () => Promise<T>): Promise<T | undefined> {
  try {
    const result = await body();
    steps.push(name);
    return result;
  } catch (error) {
    if (!(error instanceof MiniGptError)) throw error;
    steps.push(error.code);
    messages.push(error.message);
    return undefined;
  }
}

async function answer(model: NativeModel): Promise<number[]> {
  const { data, width, height } = gray();
  const image = await model.encodeImage(data, width, height);
  const sequence = model.openSequence();
  try {
    return Array.from((await sequence.generate(request(question(image), { maxTokens: 4 }), () => {})).ids);
  } finally {
    sequence.close();
  }
}

async function train(model: NativeModel): Promise<void> {
  const trainer = await model.openTrainer({ maxRows: 64 });
  try {
    const { imageTokens, projectionInput, bos } = model.info();
    const ids = Int32Array.from([bos, ...new Array<number>(imageTokens).fill(-1), 5, 6]);
    const targets = ids.map((_id, t) => (t >= ids.length - 2 ? 7 : -1));
    await trainer.accumulate([{ ids, targets, features: new Float32Array(imageTokens * projectionInput).fill(0.1) }]);
    await trainer.apply({ rate: 1e-4 });
  } finally {
    trainer.close();
  }
}

/** Pictures that wait for each other; in how many passes they were encoded, and their values. */
async function together(model: NativeModel, count: number): Promise<{ passes: number; values: Float32Array[] }> {
  const busy = model.tracePrompt([{ ids: new Int32Array(100).fill(5) }]);
  const side = model.info().imageSize;
  const waiting = Promise.all(
    Array.from({ length: count }, (_, i) =>
      model.encodeImage(new Uint8Array(side * side * 3).fill(40 * i + 9), side, side),
    ),
  );
  const [images] = await Promise.all([waiting, busy]);
  const passes = new Set(images.map(({ encodeMs }) => encodeMs)).size;
  return { passes, values: images.map((image) => image.toFloat32Array()) };
}

const answers: number[][] = [];
let passes: (number | undefined)[] = [];
const model = await step('loaded', () => addon.loadModel({ model: path, device, contextLength: 128, kvType: 'f32' }));
const gpuLayers = model?.info().gpuLayers;
if (model) {
  if (more === 'pictures') {
    const first = await step('encoded', () => together(model, 3));
    const again = await step('encoded', () => together(model, 3));
    if (first && again && String(first.values) !== String(again.values)) throw new Error('the pictures differ');
    passes = [first?.passes, again?.passes];
  }
  for (let i = 0; i < 2; i++) {
    const ids = await step('answered', () => answer(model));
    if (ids) answers.push(ids);
  }
  await step('trained', () => train(model));
  await step('closed', () => model.close());
}
const host = await addon.loadModel({ model: path, device: 'cpu', contextLength: 128, kvType: 'f32' });
const expected = await answer(host);
await host.close();
steps.push('answered on the CPU');
// an answer that came is the right one, whatever failed before it
for (const ids of answers)
  if (String(ids) !== String(expected)) throw new Error(`answered ${String(ids)}, expected ${String(expected)}`);
process.stdout.write(JSON.stringify({ steps, messages, gpuLayers, passes }));
