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
        ? t('The model runs on this computer. Nothing you write leaves it.')
        : t('{0} answers. What you write, and the code that goes with it, is sent there.', hostOf(remote.url)),
    examples: [
      t('Explain what this file does, step by step'),
      t('Find bugs and risky edge cases in this code'),
      t('Write unit tests for the most important function here'),
    ],
    examplesLabel: t('Examples'),
    placeholder: t('Ask about your code; @ adds to it'),
    send: t('Send'),
    stop: t('Stop'),
    copy: t('Copy'),
    copied: t('Copied'),
    insert: t('Insert at cursor'),
    apply: t('Show as a change of the file'),
    run: t('Run in Terminal'),
    copyAnswer: t('Copy answer'),
    edit: t('Edit the question'),
    editNote: t('This answer and what follows are replaced.'),
    cancel: t('Cancel'),
    regenerate: t('Answer again'),
    thinking: t('Thinking…'),
    thoughts: t('Thoughts'),
    answerNow: t('Answer now'),
    thinkingMode: t('Thinking: {0}', '{0}'),
    cannotThink: t('This model answers without thinking'),
    chooseModel: t('Choose model'),
    contextLabel: t('Goes with your question'),
    sentLabel: t('Went with the question'),
    restricted: t('This folder is in restricted mode. Hearth searches it once you trust it.'),
    passages: t('{0} passages', '{0}'),
    omitted: t('Left out: {0}', '{0}'),
    mentions: t('What to mention'),
    usage: t("{0} of {1} tokens of the model's window are in use ({2}%)", '{0}', '{1}', '{2}'),
    missingPlace: t('The workspace has no {0}.', '{0}'),
    removeChip: t('Remove {0}', '{0}'),
    addChip: t('Add {0}', '{0}'),
    chipTokens: t('about {0} tokens', '{0}'),
    stopped: t('You stopped this answer.'),
    interrupted: t('This answer was interrupted when the window closed. What had come is kept.'),
    cutByLength: t('The answer reached the length limit of the settings.'),
    cutByContext: t("The answer reached the end of the model's context. Start a new chat to go on."),
    dropped: t('{0} earlier messages no longer fit into the context and were left out.', '{0}'),
    speed: t('{0} tokens/s', '{0}'),
    promptTokens: t('{0} prompt, {1} cached', '{0}', '{1}'),
    figuresDetail: t('{0} tokens of prompt, {1} of them from the cache; first word after {2} s', '{0}', '{1}', '{2}'),
    image: t('image'),
    answered: t('The answer is complete.'),
    scrollDown: t('Go to the end'),
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
    },
  };
}
