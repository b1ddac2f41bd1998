// The head of the page, the newest figures, the table of steps, and what the run is.
/* global document */
import { count, duration, find, loss, make, percent, scientific, short, shortTime, time, write } from './format.js';

const states = {
  waiting: 'Waiting for its first step',
  running: 'Running',
  finished: 'Finished',
  stopped: 'Stopped',
  gone: 'Its process is gone',
  silent: 'Silent',
};

export function showSummary({ run, status, stride }) {
  const { latest } = status;
  const name = run?.jobName ?? 'Training run';
  const share = latest ? latest.step / latest.steps : 0;
  write(find('name'), name);
  const state = find('state');
  state.dataset.state = status.state;
  write(state, states[status.state]);
  write(
    find('about'),
    run ? [run.model, run.device].filter(Boolean).join(' · ') : 'Nothing has been logged in this folder yet.',
  );
  find('progress').value = share;
  document.title = `${latest ? `${Math.floor(share * 100)} % · ` : ''}${name} – minigpt4`;
  showProgress(status);
  showFigures(status);
  write(find('stride'), stride > 1 ? `One point stands for ${stride} steps` : '');
}

function showProgress({ latest, state, reason }) {
  const parts = [];
  if (latest) {
    parts.push(`Step ${count(latest.step)} of ${count(latest.steps)}`);
    if (latest.epoch !== undefined) parts.push(`epoch ${count(latest.epoch)}`);
    if (state === 'running') parts.push(`${duration(latest.eta)} left`);
  }
  if (reason) parts.push(reason);
  write(find('progress-text'), parts.join(' · '));
}

/** Label, value, and a second line. */
function figuresOf({ latest, best, checkpoint, skipped }) {
  return [
    ['Loss, mean of 50', loss(latest?.runningLoss), latest ? `this step ${loss(latest.loss)}` : ''],
    ['Validation loss, best', loss(best?.loss), best ? `after step ${count(best.step)}` : 'none yet'],
    ['Learning rate', scientific(latest?.rate), latest ? `gradient ${short(latest.gradientNorm)}` : ''],
    ['Pairs a second', short(latest?.pairsPerSecond), latest ? `${short(latest.tokensPerSecond)} tokens` : ''],
    ['Waiting for data', percent(latest?.waiting), latest ? `vision ${percent(latest.vision)}` : ''],
    [
      'Last checkpoint',
      checkpoint ? count(checkpoint.step) : '–',
      checkpoint ? shortTime(checkpoint.time) : 'none yet',
    ],
    ['Skipped samples', count(skipped), skipped > 0 ? 'named below' : ''],
  ];
}

function showFigures(status) {
  const list = find('figures');
  figuresOf(status).forEach(([label, value, more], i) => {
    const figure =
      list.children[i] ??
      list.appendChild(
        make(
          'div',
          {},
          make('dt', { text: label }),
          make('dd', { className: 'value' }),
          make('dd', { className: 'more' }),
        ),
      );
    write(figure.children[1], value);
    write(figure.children[2], more);
  });
}

/** How old the newest line is: the one thing that changes while nothing comes. */
export function showAge({ status, ahead }) {
  const place = find('facts').querySelector('[data-age]');
  if (!place || !status.lastTime) return;
  const seconds = (Date.now() + ahead - Date.parse(status.lastTime)) / 1000;
  write(place, `${time(status.lastTime)}, ${duration(seconds)} ago`);
}

let shownFacts = '';

export function showFacts(page) {
  const { run, status } = page;
  const { starts, started, skips, skipped, checkpoint } = status;
  const facts = JSON.stringify([run, starts, started, checkpoint, skipped, skips]);
  if (facts !== shownFacts) {
    shownFacts = facts;
    find('run').hidden = !run;
    const rows = run
      ? [
          ['Folder', run.folder],
          ['Model', run.model],
          ['Device', [run.device, run.host].filter(Boolean).join(' of ')],
          [
            'Data',
            run.datasets
              .map(({ name, pairs }) => (pairs === undefined ? name : `${name} (${count(pairs)} pairs)`))
              .join(', '),
          ],
          [
            'Started',
            starts > 1
              ? `${time(started)}, then resumed ${starts - 1} ${starts === 2 ? 'time' : 'times'}`
              : time(started),
          ],
          ['Last checkpoint', checkpoint ? `${checkpoint.path} (step ${count(checkpoint.step)})` : 'none yet'],
        ]
      : [];
    const list = find('facts');
    list.replaceChildren(
      ...rows.flatMap(([label, value]) => [make('dt', { text: label }), make('dd', { text: value ?? '' })]),
    );
    if (run) list.append(make('dt', { text: 'Last news' }), make('dd', { 'data-age': '' }));
    showSkips(skips, skipped);
    find('config').hidden = run?.config === undefined;
    write(find('config').querySelector('pre'), run ? JSON.stringify(run.config, null, 2) : '');
  }
  showAge(page);
}

function showSkips(skips, skipped) {
  const details = find('skipped');
  details.hidden = skips.length === 0;
  const which = skipped > skips.length ? `the newest ${skips.length} of ${count(skipped)}` : count(skipped);
  write(details.querySelector('summary'), `Skipped samples: ${which}`);
  details
    .querySelector('ul')
    .replaceChildren(
      ...skips.map(({ step, dataset, name, reason }) =>
        make('li', { text: `${dataset} ${name}: ${reason} (step ${count(step)})` }),
      ),
    );
}

const NEWEST = 30;
const columns = [
  ['Step', 'step', count],
  ['Loss', 'loss', loss],
  ['Mean loss', 'runningLoss', loss],
  ['Gradient', 'gradientNorm', short],
  ['Rate', 'rate', scientific],
  ['Pairs/s', 'pairsPerSecond', short],
  ['Tokens/s', 'tokensPerSecond', short],
  ['Waiting', 'waiting', percent],
  ['Vision', 'vision', percent],
];

export function showNumbers({ columns: values }) {
  const details = find('numbers');
  const steps = values.step ?? [];
  details.hidden = steps.length === 0;
  if (!details.open) return;
  const rows = [];
  for (let i = steps.length - 1; i >= Math.max(0, steps.length - NEWEST); i--) {
    rows.push(
      make(
        'tr',
        {},
        ...columns.map(([, name, format], k) =>
          make(k === 0 ? 'th' : 'td', { text: format(values[name][i]), ...(k === 0 ? { scope: 'row' } : {}) }),
        ),
      ),
    );
  }
  const head = make('tr', {}, ...columns.map(([label]) => make('th', { text: label, scope: 'col' })));
  details
    .querySelector('.scroll')
    .replaceChildren(make('table', {}, make('thead', {}, head), make('tbody', {}, ...rows)));
}
