// Keeps what the server tells of the run, and has the page's parts draw it.
/* global document, EventSource, requestAnimationFrame, setInterval */
import { showAnswers } from './answers.js';
import { drawCurves } from './charts.js';
import { find, write } from './format.js';
import { showAge, showFacts, showNumbers, showSummary } from './summary.js';

const empty = () => ({
  status: { state: 'waiting', starts: 0, skipped: 0, skips: [] },
  run: undefined,
  columns: {},
  stride: 1,
  validations: [],
  pictures: [],
  /** Milliseconds by which the server's clock is ahead of this one's. */
  ahead: 0,
});
let run = empty();
let planned = false;

/** Takes in what is new; everything drawn comes from `run`. */
function take(update) {
  if (update.reset) run = empty();
  run.status = update.status;
  run.ahead = Date.parse(update.now) - Date.now();
  if (update.run) run.run = update.run;
  if (update.pictures) run.pictures = update.pictures;
  if (update.series) {
    run.stride = update.series.stride;
    for (const [name, values] of Object.entries(update.series.columns)) {
      const kept = run.columns[name] ?? [];
      kept.length = Math.min(kept.length, update.series.from);
      for (const value of values) kept.push(value);
      run.columns[name] = kept;
    }
  }
  if (update.validations) {
    run.validations.length = Math.min(run.validations.length, update.validations.from);
    run.validations.push(...update.validations.list);
  }
  plan();
}

/** Draws at most once a frame, and not at all while nobody looks. */
function plan() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    showSummary(run);
    drawCurves(run);
    showNumbers(run);
    showAnswers(run);
    showFacts(run);
  });
}

function trouble(text) {
  const line = find('trouble');
  line.hidden = text === '';
  write(line, text);
}

const news = new EventSource('events');
news.addEventListener('open', () => trouble(''));
news.addEventListener('news', (event) => {
  trouble('');
  take(JSON.parse(event.data));
});
news.addEventListener('trouble', (event) => trouble(`The run’s log cannot be read: ${JSON.parse(event.data)}`));
news.addEventListener('error', () =>
  trouble('The server of this page does not answer; what stands here is the last it told. Trying again …'),
);
find('numbers').addEventListener('toggle', plan);
setInterval(() => {
  if (!document.hidden) showAge(run);
}, 1000);
