//! Who gets tokens, as configured.
#![cfg_attr(not(feature = "recognizer"), expect(dead_code, reason = "only `dev` makes what is not configured"))]

use hearsay_auth::{App, Auth, Keys, Secret};
use hearsay_protocol::AccountId;
use rand::RngCore;

use crate::config::{AuthConfig, ConfigError};

/// What is not configured is made for this start.
pub(crate) fn of_this_start(config: &AuthConfig) -> anyhow::Result<Auth> {
    let app = match app(config)? {
        Some(app) => app,
        None => {
            let app = App::generate(random);
            eprintln!("app id of this start:     {}", app.id());
            eprintln!("app secret of this start: {}", app.secret().expose());
            app
        }
    };
    let keys = match &config.signing_secret {
        Some(secret) => Keys::new(secret.expose().as_bytes())?,
        None => {
            let mut secret = [0; 64];
            random(&mut secret);
            Keys::new(&secret)?
        }
    };
    put_together(config, keys, Some(app))
}

/// For one gateway of several: a token of one must be good at all.
///
/// # Errors
/// Says what is missing.
pub(crate) fn of_a_cluster(config: &AuthConfig) -> anyhow::Result<Auth> {
    let Some(secret) = &config.signing_secret else {
        let missing = "auth.signing_secret is not set: gateways that sign tokens with different secrets refuse each \
                       other's. Set HEARSAY__AUTH__SIGNING_SECRET to the same 32 bytes or more at all of them, for \
                       instance from `openssl rand -hex 32`";
        return Err(ConfigError::Contradiction(missing.to_owned()).into());
    };
    let keys = Keys::new(secret.expose().as_bytes())?;
    let app = app(config)?;
    if app.is_none() {
        tracing::warn!("auth.app_id and auth.app_secret are not set: /oauth2/token:generate gives nobody a token");
    }
    put_together(config, keys, app)
}

fn app(config: &AuthConfig) -> anyhow::Result<Option<App>> {
    Ok(match (&config.app_id, &config.app_secret) {
        (Some(id), Some(secret)) => Some(App::new(id.clone(), Secret::new(secret.expose().to_owned()))?),
        _ => None,
    })
}

fn put_together(config: &AuthConfig, keys: Keys, app: Option<App>) -> anyhow::Result<Auth> {
    let account = AccountId::new(&config.account)?;
    if app.as_ref().is_some_and(|app| !app.suits_every_client()) {
        tracing::warn!("web-sdk takes app ids of 64 and app secrets of 128 letters and digits only, and refuses these");
    }
    Ok(Auth::new(keys, app.map(|app| (app, account)).into_iter().collect(), config.token_lifetime.get()))
}

fn random(bytes: &mut [u8]) {
    rand::rng().fill_bytes(bytes);
}
