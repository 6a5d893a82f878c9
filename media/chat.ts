/**
 * The chat view's page. What tests and assistive technology can rely on:
 *
 *   #transcript (role=log)    the turns; #empty replaces it while there are none
 *   .turn[data-turn][data-kind=chat|summary][data-state=queued|running|done|stopped|interrupted|failed]
 *     .question .question-text, .edit, .question-form while it is edited, .chips .chip, .passages (details): many search results
 *     .answer .thoughts (details), .answer-now, .answer-text with .citation, .progress-line, .turn-footer: .remark, .card.error [data-action],
 *       .again, .figures, .queue-line (queued): [data-action=send|remove]
 *     .code: .code-language, [data-action=apply|insert|copy]
 *     .changes: li[data-kind=change|create|delete|rename][data-state=proposed|accepted|rejected][data-path], [data-act=accept|reject|restore]
 *   #notice[data-kind=none|progress|no-model|problem]   above the box: state of the engine, offered downloads
 *   #restricted               the folder is not trusted, so Hearth does not search it
 *   #chips .chip[data-chip]   attachments of the question, each with a remove button
 *   #question                 the text box: Enter sends, Shift+Enter adds a line, Escape stops, Up recalls
 *   #mentions [role=option]   suggestions for a mention after `@` or `#`
 *   #usage                    context window use
 *   #model, #thinking         open the pickers; #thinking has aria-pressed
 *   #send, #stop              #stop during an answer, and #send beside it once the box has text
 *   #announcer (aria-live)    says when an answer is complete or a question queued
 */
import type { ToPage } from '../extension/messages.ts';
import './chat.css';
import { Composer } from './composer.ts';
import { Host } from './host.ts';
import { Transcript } from './transcript.ts';

const host = new Host();
const composer = new Composer(host);
const transcript = new Transcript(host, (question) => {
  composer.setText(question);
  composer.focus();
});
composer.recall = () => transcript.lastQuestion;

function handle(message: ToPage): void {
  switch (message.type) {
    case 'conversation':
      transcript.showAll(message.turns);
      showState();
      return;
    case 'turn':
      transcript.show(message.turn);
      showState();
      return;
    case 'changes':
      transcript.showChanges(message.turn, message.changes);
      return;
    case 'notice':
      composer.showNotice(message.notice);
      return;
    case 'controls':
      composer.showControls(message.controls);
      return;
    case 'context':
      composer.showContext(message.context);
      return;
    case 'suggestions':
      composer.showSuggestions(message.query, message.items);
      return;
    case 'draft':
      composer.restore(message.draft);
      return;
    case 'mirror':
      composer.mirror(message.draft);
      return;
    case 'dropped':
      composer.insertDropped(message.text, message.refused);
      return;
    case 'focus':
      composer.focus();
      return;
    default:
      transcript.apply(message);
      if (message.type !== 'delta') showState();
  }
}

function showState(): void {
  composer.showUsage(transcript.usedTokens);
  composer.setRunning(transcript.running);
  // While an answer runs, hides the buttons that ask again.
  document.body.classList.toggle('answering', transcript.running);
}

document.body.append(transcript.element, composer.element);
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && transcript.running) host.act('stop');
});
host.listen(handle);
host.send({ type: 'ready' });
