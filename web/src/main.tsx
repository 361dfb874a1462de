import './styles/fonts.css';
import './styles/base.css';
import './styles/parts.css';
import './styles/views.css';
import './styles/editors.css';
import { render } from 'preact';
import { App } from './app';
import { applyTheme } from './theme';

applyTheme();
render(<App />, document.getElementById('app')!);
