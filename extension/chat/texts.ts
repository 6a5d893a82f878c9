import * as vscode from 'vscode';
import type { Texts } from '../messages.ts';
import { hostOf } from '../remote.ts';
import { remoteSettings } from '../settings.ts';

/** The page's texts in the user's language. Called when the page is made: `l10n` is not ready before activation. */
export function pageTexts(): Texts {
  const { t } = vscode.l10n;
  const remote = remoteSettings();
  return {
    conversation: t('Conversation'),
    you: t('You'),
    answer: t('Hearth'),
    emptyTitle: t('Ask about your code'),
    emptyText:
      remote === undefined
        ? t('The model runs on this computer. Nothing you write is sent anywhere.')
        : t('{0} answers. Your questions and attached code are sent there.', hostOf(remote.url)),
    examples: [
      t('Explain what this file does, step by step'),
      t('Find bugs and risky edge cases in this code'),
      t('Write unit tests for the most important function here'),
    ],
    examplesLabel: t('Examples'),
    placeholder: t('Ask about your code (@ to attach)'),
    send: t('Send'),
    stop: t('Stop'),
    queue: t('Add to the queue'),
    queued: t('Queued'),
    held: t('Not sent'),
    copy: t('Copy'),
    copied: t('Copied'),
    insert: t('Insert at cursor'),
    apply: t('Show as a change to the file'),
    run: t('Run in Terminal'),
    copyAnswer: t('Copy answer'),
    edit: t('Edit the question'),
    editNote: t('Replaces this answer and everything after it.'),
    cancel: t('Cancel'),
    regenerate: t('Answer again'),
    thinking: t('Thinking…'),
    thoughts: t('Thoughts'),
    answerNow: t('Answer now'),
    thinkingMode: t('Thinking: {0}', '{0}'),
    cannotThink: t('This model cannot think'),
    chooseModel: t('Choose model'),
    contextLabel: t('Attached to your question'),
    sentLabel: t('Attached to the question'),
    restricted: t('This folder is in restricted mode. Trust it to let Hearth search it.'),
    passages: t('{0} chunks', '{0}'),
    omitted: t('Left out: {0}', '{0}'),
    mentions: t('Mentions'),
    usage: t('{0} of {1} tokens of the context window used ({2}%)', '{0}', '{1}', '{2}'),
    missingPlace: t('{0} is not in the workspace.', '{0}'),
    removeChip: t('Remove {0}', '{0}'),
    addChip: t('Add {0}', '{0}'),
    chipTokens: t('about {0} tokens', '{0}'),
    stopped: t('You stopped this answer.'),
    interrupted: t('The window closed during this answer. The text received so far was saved.'),
    cutByLength: t('The answer reached the maximum length in your settings.'),
    cutByContext: t('The context window is full. Start a new chat to continue.'),
    cutByRepetition: t('The model repeated itself, so the answer was stopped.'),
    dropped: t('{0} earlier messages did not fit the context window and were left out.', '{0}'),
    speed: t('{0} tokens/s', '{0}'),
    promptTokens: t('{0} prompt, {1} cached', '{0}', '{1}'),
    figuresDetail: t('{0} prompt tokens, {1} from the cache; time to first token {2} s', '{0}', '{1}', '{2}'),
    image: t('image'),
    answered: t('The answer is complete.'),
    scrollDown: t('Scroll to the end'),
    download: t('Download'),
    otherModels: t('Other models'),
    actions: {
      retry: t('Try again'),
      restart: t('Restart the engine'),
      'choose-model': t('Choose a model'),
      'show-log': t('Show log'),
      'new-chat': t('New chat'),
      settings: t('Settings'),
      trust: t('Manage trust'),
      send: t('Send'),
      remove: t('Remove from the queue'),
    },
  };
}
