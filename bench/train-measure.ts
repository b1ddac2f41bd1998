// Our side of bench/train.ts, in a process of its own so that its memory is its own: loads a model, then takes a training step for each line
// of standard input. Speaks JSON lines, as train_torch.py does: first { ready, weightBytes, device }, then { ms, loss } a step.
//
//   train-measure.ts CASE.json '{"threads": 2}'
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { addon, type NativeTrainingSample } from '../lib/addon.js';
import type { Case } from './train-cases.js';

const [file, wishes] = process.argv.slice(2);
if (!file || !wishes) {
  console.error('usage: train-measure.ts CASE.json WISHES');
  process.exit(2);
}
const wanted = JSON.parse(readFileSync(file, 'utf8')) as Case;
const { threads } = JSON.parse(wishes) as { threads: number };
const say = (words: object): void => console.log(JSON.stringify(words));

const bytes = readFileSync(wanted.features);
const features = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
let used = 0;
const samples = wanted.samples.map(({ ids, targets }): NativeTrainingSample => {
  const from = used;
  used += ids.filter((id) => id < 0).length * wanted.sizes.input;
  return {
    ids: Int32Array.from(ids),
    targets: Int32Array.from(targets),
    features: features.subarray(from, used),
  };
});

const model = await addon.loadModel({
  model: wanted.model,
  threads,
  ...(wanted.llm === undefined ? {} : { llm: wanted.llm }),
});
const trainer = await model.openTrainer();
const { memory, device } = model.info();
const weights = memory.filter(({ owner }) => owner.endsWith('weights'));
say({ ready: true, weightBytes: weights.reduce((sum, { bytes }) => sum + bytes, 0), device });
for await (const line of createInterface({ input: process.stdin })) {
  if (line !== 'step') throw new Error(`expected the line 'step', found ${JSON.stringify(line)}`);
  const began = performance.now();
  const { loss, targets } = await trainer.accumulate(samples);
  await trainer.apply({ rate: 0 }); // the whole work of a step, and the next one is the same again
  say({ ms: performance.now() - began, loss: loss / targets });
}
say({ owners: model.info().memory });
trainer.close();
await model.close();
