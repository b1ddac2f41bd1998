// Event files for TensorBoard: curves of training and validation, and the answers to the fixed pictures as texts.
import { existsSync } from 'node:fs';
import { hostname } from 'node:os';
import { basename, join } from 'node:path';
import type { MiniGptError } from '../errors.js';
import type { StepEvent, TrainEvent, ValidationEvent } from './events.js';
import { LogFile } from './log-file.js';
import { bytes, double, float, whole, type Field } from './log-protobuf.js';
import { record } from './log-records.js';

// field numbers of tensorflow/core/util/event.proto and tensorboard/compat/proto/{summary,tensor}.proto
const EVENT = { wallTime: 1, step: 2, fileVersion: 3, summary: 5, sessionLog: 7 };
const SUMMARY = { value: 1 };
const VALUE = { tag: 1, simpleValue: 2, tensor: 8, metadata: 9 };
const METADATA = { pluginData: 1, dataClass: 4 };
const PLUGIN_DATA = { pluginName: 1 };
const TENSOR = { dtype: 1, shape: 2, stringValue: 8 };
const SESSION_LOG = { status: 1 };
const DTYPE_STRING = 7;
const DATA_CLASS_TENSOR = 2;
const SESSION_START = 1;

const stepCurves: [tag: string, of: (event: StepEvent) => number][] = [
  ['train/loss', (event) => event.loss],
  ['train/mean_loss', (event) => event.runningLoss],
  ['train/learning_rate', (event) => event.rate],
  ['train/gradient_norm', (event) => event.gradientNorm],
  ['train/pairs_per_second', (event) => event.pairsPerSecond],
  ['train/tokens_per_second', (event) => event.tokensPerSecond],
  ['train/waiting_for_data', (event) => event.waiting],
  ['train/vision', (event) => event.vision],
];

export interface TensorboardLog {
  event(event: TrainEvent): void;
  /** Resolves with the number of records that could not be written. */
  close(): Promise<number>;
}

/**
 * A new event file in `folder`, which TensorBoard reads together with those of before; what they have beyond `startStep` it then leaves out.
 * Errors: those of opening; failures later are told to `onTrouble`, once.
 */
export async function openTensorboard(
  folder: string,
  startStep: number,
  onTrouble: (error: MiniGptError) => void,
): Promise<TensorboardLog> {
  const file = await LogFile.open(freeName(folder), 'wx', 0, onTrouble);
  const write = (...fields: Field[]) =>
    file.append(record(Buffer.concat([double(EVENT.wallTime, Date.now() / 1000), ...fields])));
  const summary = (step: number, values: Field[]) => {
    if (values.length > 0) write(whole(EVENT.step, step), bytes(EVENT.summary, values));
  };
  write(bytes(EVENT.fileVersion, 'brain.Event:2'));
  if (startStep > 0)
    write(whole(EVENT.step, startStep + 1), bytes(EVENT.sessionLog, [whole(SESSION_LOG.status, SESSION_START)]));
  return {
    event(event) {
      if (event.kind === 'step')
        summary(
          event.step,
          stepCurves.map(([tag, of]) => scalar(tag, of(event))),
        );
      if (event.kind === 'validation') summary(event.step, validationValues(event));
    },
    close: () => file.close(),
  };
}

function validationValues({ loss, answers }: ValidationEvent): Field[] {
  return [
    ...(loss === undefined ? [] : [scalar('validation/loss', loss)]),
    ...answers.map(({ picture, prompt, text }, index) =>
      string(`answers/${index + 1} ${basename(picture)}`, `**${prompt}**\n\n${text}`),
    ),
  ];
}

const scalar = (tag: string, value: number): Field =>
  bytes(SUMMARY.value, [bytes(VALUE.tag, tag), float(VALUE.simpleValue, value)]);

/** A text, which TensorBoard reads as Markdown and cleans of HTML. */
const string = (tag: string, text: string): Field =>
  bytes(SUMMARY.value, [
    bytes(VALUE.tag, tag),
    bytes(VALUE.tensor, [whole(TENSOR.dtype, DTYPE_STRING), bytes(TENSOR.shape, []), bytes(TENSOR.stringValue, text)]),
    bytes(VALUE.metadata, [
      bytes(METADATA.pluginData, [bytes(PLUGIN_DATA.pluginName, 'text')]),
      whole(METADATA.dataClass, DATA_CLASS_TENSOR),
    ]),
  ]);

/** TensorBoard takes the files of a run in the order of their names. */
function freeName(folder: string): string {
  const start = `events.out.tfevents.${Math.floor(Date.now() / 1000)}.${hostname().replace(/[^\w.-]/g, '_')}`;
  for (let n = 0; ; n++) {
    const path = join(folder, `${start}.${n}`);
    if (!existsSync(path)) return path;
  }
}
